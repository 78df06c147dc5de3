//! Where networks run.

use crate::graph::Error;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A device, by the user's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Device {
    /// CUDA where it is there, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by ordinal.
    Cuda(usize),
}

impl std::str::FromStr for Device {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::Contract(format!(
                "device: expected auto, cpu or cuda:N (such as cuda:0), found {text:?}"
            ))
        };
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            other => {
                let ordinal = other.strip_prefix("cuda:").ok_or_else(wrong)?;
                let digits =
                    !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
                let ordinal = ordinal.parse().map_err(|_| wrong())?;
                if digits { Ok(Self::Cuda(ordinal)) } else { Err(wrong()) }
            }
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Cpu => write!(f, "cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl Device {
    /// Turns the user's word into a device that is there.
    pub(crate) fn resolve(self) -> Result<tch::Device, Error> {
        match self {
            Self::Cpu => Ok(tch::Device::Cpu),
            Self::Auto => {
                let there = cuda(None).is_ok() && tch::Cuda::is_available();
                Ok(if there { tch::Device::Cuda(0) } else { tch::Device::Cpu })
            }
            Self::Cuda(ordinal) => {
                cuda(None).map_err(|why| {
                    Error::Contract(format!("device cuda:{ordinal} cannot be used: {why}"))
                })?;
                let count = tch::Cuda::device_count().max(0) as usize;
                if ordinal >= count {
                    return Err(Error::Contract(format!(
                        "device: expected one of {count} CUDA devices, found cuda:{ordinal}; \
                         CUDA must be named before the first network runs"
                    )));
                }
                Ok(tch::Device::Cuda(ordinal))
            }
        }
    }
}

/// Loads the CUDA part of libtorch from the `lib` folder of an installed PyTorch 2.11.0.
///
/// To be called before the first network is loaded: libtorch looks for its CUDA hooks once.
///
/// # Errors
/// `Error::Contract` if the library cannot be loaded.
pub fn load_cuda(folder: &Path) -> Result<(), Error> {
    cuda(Some(folder)).map_err(Error::Contract)
}

/// Sets the number of threads of every computation in this process. Without a call libtorch uses
/// all cores.
///
/// # Errors
/// `Error::Contract` unless `threads` is 1..=1024.
pub fn set_threads(threads: usize) -> Result<(), Error> {
    if !(1..=1024).contains(&threads) {
        return Err(Error::Contract(format!("threads: expected 1..=1024, found {threads}")));
    }
    tch::set_num_threads(threads as i32);
    Ok(())
}

/// Jobs that share the threads of this process until it is dropped.
pub struct ThreadShare {
    jobs: usize,
}

/// How many share the threads, and how many threads there were before.
static SHARED: Mutex<Option<(usize, usize)>> = Mutex::new(None);

impl ThreadShare {
    /// Gives each of so many jobs its part of the threads; of fewer jobs where there are fewer threads.
    ///
    /// # Errors
    /// As `set_threads`.
    pub fn new(jobs: usize) -> Result<Self, Error> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let (users, threads) = shared.unwrap_or((0, self::threads() as usize));
        let jobs = jobs.clamp(1, threads.max(1));
        set_threads((threads / jobs).max(1))?;
        *shared = Some((users + 1, threads));
        Ok(Self { jobs })
    }

    /// How many jobs there are to be.
    pub fn jobs(&self) -> usize {
        self.jobs
    }
}

impl Drop for ThreadShare {
    fn drop(&mut self) {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        *shared = match *shared {
            Some((1, threads)) => {
                // The number was in force before, so that it cannot be refused.
                let _ = set_threads(threads);
                None
            }
            other => other.map(|(users, threads)| (users - 1, threads)),
        };
    }
}

/// Finds out whether a device can be used, before work is begun on it.
///
/// # Errors
/// `Error::Contract` with the reason.
pub fn check(device: Device) -> Result<(), Error> {
    device.resolve().map(|_| ())
}

/// The number of threads that computations use.
pub fn threads() -> u32 {
    u32::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// The library must be in the process before libtorch is first asked for CUDA, hence one try only.
fn cuda(folder: Option<&Path>) -> Result<(), String> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED.get_or_init(|| open_library(folder)).clone()
}

fn open_library(folder: Option<&Path>) -> Result<(), String> {
    const LIBRARY: &str = "libtorch_cuda.so";
    let path = folder.map_or_else(|| PathBuf::from(LIBRARY), |folder| folder.join(LIBRARY));
    // SAFETY: the library's initialisers register CUDA with libtorch and touch nothing of ours.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
    // libtorch keeps pointers into the library: it must never be closed.
    library.map(std::mem::forget).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::Device;

    #[test]
    fn words_name_devices_and_nothing_else_does() {
        assert_eq!("auto".parse::<Device>().expect("auto"), Device::Auto);
        assert_eq!("cuda:11".parse::<Device>().expect("cuda:11"), Device::Cuda(11));
        for wrong in
            ["", "gpu", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "CPU", "cuda:99999999999999999999"]
        {
            let error = wrong.parse::<Device>().expect_err(wrong).to_string();
            assert!(error.contains("expected auto, cpu or cuda:N"), "{wrong}: {error}");
        }
    }
}
