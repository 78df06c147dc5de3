//! Work on many items side by side.

use crate::{Error, Observer, Progress, Result};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often a job that has nothing to report asks whether to go on.
const PATIENCE: Duration = Duration::from_millis(100);

/// Runs `work` on every item, at most `jobs` at a time, and hands each result to `each` on the caller's thread in the order in
/// which they come; `each(None)` is a chance to stop while none does.
///
/// # Errors
/// The first error of `work` or `each`. Items that are under way then are told to stop and waited for, their results
/// dropped.
pub fn for_each<T: Send, R: Send>(
    items: Vec<T>,
    jobs: usize,
    work: impl Fn(T, Observer<'_>) -> Result<R> + Sync,
    each: &mut dyn FnMut(Option<R>) -> Result<()>,
) -> Result<()> {
    let items = Mutex::new(items.into_iter());
    let stop = AtomicBool::new(false);
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        for number in 0..jobs {
            let send = send.clone();
            let (work, stop, next) = (&work, &stop, &next);
            let worker = move || {
                let mut observer = |_: Progress| match stop.load(Ordering::Relaxed) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                };
                while let Some(item) = next() {
                    // The receiver is gone once something failed.
                    if stop.load(Ordering::Relaxed) || send.send(work(item, &mut observer)).is_err()
                    {
                        break;
                    }
                }
            };
            match thread::Builder::new().spawn_scoped(scope, worker) {
                Ok(_) => {}
                // Fewer do the same, if more slowly.
                Err(_) if number > 0 => break,
                Err(error) => return Err(Error::input(format!("no thread to work in: {error}"))),
            }
        }
        drop(send);
        let outcome = loop {
            let told = match receive.recv_timeout(PATIENCE) {
                Ok(result) => result.and_then(|result| each(Some(result))),
                Err(RecvTimeoutError::Timeout) => each(None),
                Err(RecvTimeoutError::Disconnected) => break Ok(()),
            };
            if told.is_err() {
                break told;
            }
        };
        stop.store(true, Ordering::Relaxed);
        drop(receive);
        outcome
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Instant;

    #[test]
    fn every_item_is_worked_on_once_and_side_by_side() {
        let (active, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let start = Instant::now();
        let work = |item: usize, _: Observer<'_>| {
            let now = active.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            // Waits for a second one, but not for ever.
            while most.load(Ordering::SeqCst) < 2 && start.elapsed() < Duration::from_secs(10) {
                thread::yield_now();
            }
            active.fetch_sub(1, Ordering::SeqCst);
            Ok(item * 10)
        };
        let mut results = Vec::new();
        let mut keep = |result: Option<usize>| {
            results.extend(result);
            Ok(())
        };
        for_each((0..5).collect(), 2, work, &mut keep).unwrap();
        results.sort_unstable();
        assert_eq!(results, [0, 10, 20, 30, 40]);
        assert_eq!(most.load(Ordering::SeqCst), 2, "two at a time, no more and no fewer");
    }

    #[test]
    fn the_first_error_stops_the_others() {
        let work = |item: usize, observer: Observer<'_>| match item {
            0 => Err(Error::Input("zero".into())),
            _ => loop {
                crate::progress::report(&mut *observer, "waiting", "", 0, 0)?;
                thread::yield_now();
            },
        };
        let outcome = for_each::<_, ()>((0..6).collect(), 2, work, &mut |_| Ok(()));
        assert!(matches!(outcome, Err(Error::Input(_))), "{outcome:?}");
    }

    #[test]
    fn the_caller_may_stop_while_nothing_comes() {
        let work = |_: usize, observer: Observer<'_>| -> Result<()> {
            loop {
                crate::progress::report(&mut *observer, "waiting", "", 0, 0)?;
                thread::yield_now();
            }
        };
        let mut stop = |_| Err(Error::Cancelled);
        let outcome = for_each(vec![1, 2, 3], 2, work, &mut stop);
        assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    }
}
