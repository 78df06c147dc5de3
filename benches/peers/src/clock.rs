//! Wall time, processor time and resident memory of this process.

use cpu_time::ProcessTime;
use std::time::Instant;

/// A point in time.
pub struct Clock {
    wall: Instant,
    cpu: ProcessTime,
}

impl Clock {
    /// Now.
    pub fn start() -> Self {
        Self { cpu: ProcessTime::now(), wall: Instant::now() }
    }

    /// Prints the times since `start` and further fields as one line of JSON.
    pub fn report(&self, fields: &str) {
        let (wall, cpu) = (self.wall.elapsed().as_secs_f64(), self.cpu.elapsed().as_secs_f64());
        println!(r#"{{"wall":{wall},"cpu":{cpu},{fields}}}"#);
    }
}

/// Resident memory, mapped files included; 0 where it is not known.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}
