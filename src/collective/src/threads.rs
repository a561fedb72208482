//! Ranks that are threads of one process, for tests: the same interface without a launcher.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::{Collective, CollectiveError, check_counts};

/// The time after which a rank that waits for the others gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// The bytes that each rank has given to one exchange.
type Given = Vec<Option<Vec<u8>>>;

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    given: Given,
    /// Ranks that have not yet taken the result of the present exchange.
    to_take: usize,
    calls: Vec<Vec<Vec<u8>>>,
    gone: bool,
}

/// One rank of a group of threads.
#[derive(Debug)]
pub struct ThreadRank {
    rank: usize,
    size: usize,
    shared: Arc<Shared>,
}

/// Creates `size` ranks, one for each thread.
#[must_use]
pub fn group(size: usize) -> Vec<ThreadRank> {
    let shared = Arc::<Shared>::default();
    {
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.given, state.calls) = (vec![None; size], vec![Vec::new(); size]);
    }
    (0..size).map(|rank| ThreadRank { rank, size, shared: Arc::clone(&shared) }).collect()
}

impl ThreadRank {
    /// Waits until `ready` returns something.
    fn wait<R>(&self, mut ready: impl FnMut(&mut State) -> Option<R>) -> Result<R, CollectiveError> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = ready(&mut state) {
                self.shared.changed.notify_all();
                return Ok(found);
            }
            if state.gone {
                return Err(CollectiveError::Gone);
            }
            let waited = self.shared.changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            if waited.1.timed_out() {
                return Err(CollectiveError::Gone);
            }
            state = waited.0;
        }
    }

    /// Returns the bytes of all ranks.
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.wait(|state| {
            // The exchange before must be over.
            let free = state.to_take == 0 && state.given[self.rank].is_none();
            free.then(|| {
                state.given[self.rank] = Some(own.to_vec());
                if state.given.iter().all(Option::is_some) {
                    state.to_take = self.size;
                }
            })
        })?;
        let mut taken = false;
        let all = self.wait(|state| {
            (state.to_take > 0 && !taken).then(|| {
                taken = true;
                let all: Vec<Vec<u8>> = state.given.iter().flatten().cloned().collect();
                state.to_take -= 1;
                if state.to_take == 0 {
                    state.given.fill(None);
                }
                all
            })
        })?;
        Ok(all)
    }

    fn gather_values(&self, own: &[f32]) -> Result<Vec<Vec<f32>>, CollectiveError> {
        let bytes: Vec<u8> = own.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let value = |bytes: &[u8; 4]| f32::from_ne_bytes(*bytes);
        Ok(self.gather(&bytes)?.iter().map(|bytes| bytes.as_chunks::<4>().0.iter().map(value).collect()).collect())
    }
}

impl Drop for ThreadRank {
    /// Wakes ranks that would wait for this one forever.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).gone = true;
            self.shared.changed.notify_all();
        }
    }
}

impl Collective for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn engine(&self) -> &'static str {
        "threads"
    }

    fn all_gather_bytes(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        self.gather(own)
    }

    fn exchange(&self, values: &[f32], counts: &[usize]) -> Result<Vec<f32>, CollectiveError> {
        check_counts(values.len(), counts, self.size)?;
        let start: usize = counts[..self.rank].iter().sum();
        let all = self.gather_values(values)?;
        Ok(all.iter().flat_map(|values| values[start..start + counts[self.rank]].to_vec()).collect())
    }

    fn all_gather(&self, values: &mut [f32], counts: &[usize]) -> Result<(), CollectiveError> {
        check_counts(values.len(), counts, self.size)?;
        let start: usize = counts[..self.rank].iter().sum();
        let all = self.gather_values(&values[start..start + counts[self.rank]])?;
        values.copy_from_slice(&all.concat());
        Ok(())
    }

    fn broadcast(&self, root: usize, values: &mut [f32]) -> Result<(), CollectiveError> {
        let own = if self.rank == root { values.to_vec() } else { Vec::new() };
        values.copy_from_slice(&self.gather_values(&own)?[root]);
        Ok(())
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        self.gather(&[]).map(drop)
    }

    fn call(&self, message: &[u8]) -> Result<(), CollectiveError> {
        self.wait(|state| {
            state.calls.iter_mut().skip(1).for_each(|calls| calls.push(message.to_vec()));
            Some(())
        })
    }

    fn await_call(&self) -> Result<Vec<u8>, CollectiveError> {
        self.wait(|state| (!state.calls[self.rank].is_empty()).then(|| state.calls[self.rank].remove(0)))
    }

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::even_counts;

    fn on_each<R: Send>(size: usize, work: impl Fn(ThreadRank) -> R + Sync) -> Vec<R> {
        let work = &work;
        std::thread::scope(|scope| {
            let threads: Vec<_> = group(size).into_iter().map(|rank| scope.spawn(move || work(rank))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn sums_are_taken_in_the_order_of_the_ranks_on_every_rank() {
        for size in 1..=4 {
            let value = |rank: usize, at: usize| (rank as f32 + 0.3) * 1.7f32.powi(at as i32);
            let sums = on_each(size, |ranks| {
                let mut values: Vec<f32> = (0..7).map(|at| value(ranks.rank(), at)).collect();
                ranks.all_reduce(&mut values).unwrap();
                values
            });
            let expected: Vec<f32> =
                (0..7).map(|at| (1..size).fold(value(0, at), |sum, rank| sum + value(rank, at))).collect();
            assert!(sums.iter().all(|sum| *sum == expected), "{size} {sums:?}");
        }
    }

    #[test]
    fn parts_may_be_empty_and_of_any_size() {
        let parts = on_each(3, |ranks| ranks.reduce_scatter(&[1.0, 2.0, 3.0, 4.0], &[3, 0, 1]).unwrap());
        assert_eq!(parts, [vec![3.0, 6.0, 9.0], vec![], vec![12.0]]);
        let parts = on_each(3, |ranks| ranks.reduce_scatter(&[1.0, 2.0], &even_counts(2, 3)).unwrap());
        assert_eq!(parts, [vec![3.0], vec![6.0], vec![]]);
    }

    #[test]
    fn bytes_calls_and_broadcasts_arrive() {
        let all = on_each(3, |ranks| {
            let bytes = vec![ranks.rank() as u8; ranks.rank()];
            let all = ranks.all_gather_bytes(&bytes).unwrap();
            let mut values = vec![ranks.rank() as f32; 2];
            ranks.broadcast(1, &mut values).unwrap();
            let called = if ranks.rank() == 0 {
                ranks.call(b"go").unwrap();
                b"go".to_vec()
            } else {
                ranks.await_call().unwrap()
            };
            ranks.barrier().unwrap();
            (all, values, called)
        });
        assert!(all.iter().all(|found| *found == all[0]));
        assert_eq!(all[0], (vec![vec![], vec![1], vec![2, 2]], vec![1.0, 1.0], b"go".to_vec()));
    }

    #[test]
    fn counts_that_do_not_fit_are_refused() {
        assert!(matches!(group(1)[0].exchange(&[1.0], &[2]), Err(CollectiveError::Counts { .. })));
    }
}
