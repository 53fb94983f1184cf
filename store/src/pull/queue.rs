//! Work that finds more work, on several threads.

use std::sync::{Condvar, Mutex, PoisonError};

struct State<T, E> {
    todo: Vec<T>,
    active: usize,
    failure: Option<E>,
}

/// Calls `work` for every item, and for the items it adds, on `threads` threads. The last item added is taken first.
/// After the first error nothing new is begun, and that error is returned.
pub(super) fn run<T: Send, E: Send>(
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T, &mut Vec<T>) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let state = Mutex::new(State { todo: items, active: 0, failure: None });
    let changed = Condvar::new();
    let worker = || {
        let mut more = Vec::new();
        let mut guard = state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if guard.failure.is_some() || (guard.todo.is_empty() && guard.active == 0) {
                changed.notify_all();
                return;
            }
            let Some(item) = guard.todo.pop() else {
                guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            guard.active += 1;
            drop(guard);
            let result = work(item, &mut more);
            guard = state.lock().unwrap_or_else(PoisonError::into_inner);
            guard.active -= 1;
            guard.todo.append(&mut more);
            if let Err(error) = result {
                guard.failure.get_or_insert(error);
            }
            changed.notify_all();
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(worker);
        }
        worker();
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn work_that_is_found_is_done() {
        for threads in [1, 4] {
            let sum = AtomicU64::new(0);
            run(threads, vec![10u64], |n, more| {
                sum.fetch_add(n, Ordering::Relaxed);
                more.extend(0..n.min(4));
                Ok::<(), ()>(())
            })
            .unwrap();
            // f(n) = n + f(0) + … + f(min(n,4) - 1); f(0..=3) = 0, 1, 3, 7
            assert_eq!(sum.into_inner(), 21);
        }
    }

    #[test]
    fn the_first_error_ends_it() {
        let result = run(3, (0..1000).collect(), |n, _| if n == 500 { Err("no") } else { Ok(()) });
        assert_eq!(result, Err("no"));
    }
}
