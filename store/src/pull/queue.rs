//! Work that finds more work, on several threads. Each takes some items ahead, so that it can ask for all of them before
//! the first has come.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Items that a thread takes ahead at most.
const AHEAD: usize = 32;
/// What they may cost together; one alone may cost more.
const BUDGET: u64 = 2 << 20;

/// What one thread does with the items it takes.
pub(super) trait Worker<T, E> {
    /// Bytes that will have to come for an item, as far as they are known.
    fn cost(&self, item: &T) -> u64;
    /// Told about an item as soon as it was taken; items are worked on in this order. `false` drops it.
    fn ahead(&mut self, item: &mut T) -> bool;
    /// Does the work, and says what else is to be done.
    fn work(&mut self, item: T, more: &mut Vec<T>) -> Result<(), E>;
}

struct State<T, E> {
    todo: Vec<T>,
    /// Threads that have items.
    active: usize,
    failure: Option<E>,
}

/// Works on every item, and on those that are found, on `threads` threads. The last item added is taken first. After the
/// first error nothing new is begun, and that error is returned.
pub(super) fn run<T: Send, E: Send, W: Worker<T, E>>(
    threads: usize,
    items: Vec<T>,
    worker: impl Fn() -> W + Sync,
) -> Result<(), E> {
    let state = Mutex::new(State { todo: items, active: 0, failure: None });
    let (changed, failed) = (Condvar::new(), AtomicBool::new(false));
    let thread = || {
        let mut worker = worker();
        let (mut mine, mut more, mut active) = (VecDeque::new(), Vec::new(), false);
        loop {
            if mine.len() <= AHEAD / 2 || !more.is_empty() {
                let old = mine.len();
                let mut guard = guard(&state);
                if !more.is_empty() {
                    guard.todo.append(&mut more);
                    changed.notify_all();
                }
                loop {
                    take(&mut guard.todo, &mut mine, threads, &worker);
                    guard.active = guard.active + usize::from(!mine.is_empty()) - usize::from(active);
                    active = !mine.is_empty();
                    if active {
                        break;
                    }
                    if guard.active == 0 || failed.load(Ordering::Relaxed) {
                        changed.notify_all();
                        return;
                    }
                    guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
                }
                drop(guard);
                let mut index = old;
                while let Some(item) = mine.get_mut(index) {
                    if worker.ahead(item) { index += 1 } else { drop(mine.remove(index)) }
                }
            }
            let Some(item) = mine.pop_front() else { continue };
            if failed.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = worker.work(item, &mut more) {
                failed.store(true, Ordering::Relaxed);
                guard(&state).failure.get_or_insert(error);
                changed.notify_all();
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(thread);
        }
        thread();
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.failure.map_or(Ok(()), Err)
}

fn guard<S>(state: &Mutex<S>) -> MutexGuard<'_, S> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes items from the end, and leaves enough for the others.
fn take<T, E>(todo: &mut Vec<T>, mine: &mut VecDeque<T>, threads: usize, worker: &impl Worker<T, E>) {
    let mut cost: u64 = mine.iter().map(|item| worker.cost(item)).sum();
    let share = todo.len().div_ceil(2 * threads);
    for _ in 0..share.min(AHEAD - mine.len()) {
        let Some(next) = todo.last() else { return };
        cost = cost.saturating_add(worker.cost(next));
        if cost > BUDGET && !mine.is_empty() {
            return;
        }
        mine.extend(todo.pop());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    struct Adds<'a>(&'a AtomicU64, VecDeque<u64>);

    impl Worker<u64, ()> for Adds<'_> {
        fn cost(&self, item: &u64) -> u64 {
            *item << 18
        }

        fn ahead(&mut self, item: &mut u64) -> bool {
            self.1.push_back(*item);
            true
        }

        fn work(&mut self, n: u64, more: &mut Vec<u64>) -> Result<(), ()> {
            assert_eq!(self.1.pop_front(), Some(n), "not in the order in which they were taken");
            self.0.fetch_add(n, Ordering::Relaxed);
            more.extend(0..n.min(4));
            Ok(())
        }
    }

    #[test]
    fn work_that_is_found_is_done() {
        for threads in [1, 4] {
            let sum = AtomicU64::new(0);
            run(threads, vec![10u64; 100], || Adds(&sum, VecDeque::new())).unwrap();
            // f(n) = n + f(0) + … + f(min(n,4) - 1); f(0..=3) = 0, 1, 3, 7
            assert_eq!(sum.into_inner(), 2100);
        }
    }

    struct Fails<'a>(&'a AtomicU64);

    impl Worker<u64, &'static str> for Fails<'_> {
        fn cost(&self, _: &u64) -> u64 {
            1
        }

        fn ahead(&mut self, item: &mut u64) -> bool {
            *item % 2 == 0
        }

        fn work(&mut self, n: u64, _: &mut Vec<u64>) -> Result<(), &'static str> {
            self.0.fetch_add(n % 2, Ordering::Relaxed);
            if n == 500 { Err("no") } else { Ok(()) }
        }
    }

    #[test]
    fn the_first_error_ends_it_and_what_is_dropped_is_not_worked_on() {
        let odd = AtomicU64::new(0);
        assert_eq!(run(3, (0..1000).collect(), || Fails(&odd)), Err("no"));
        assert_eq!(run(3, (501..1000).collect(), || Fails(&odd)), Ok(()));
        assert_eq!(odd.into_inner(), 0);
    }
}
