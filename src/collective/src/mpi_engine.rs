//! Ranks that are processes of MPI.
//!
//! Exchanges are started without blocking and then tested, with pauses: a rank that waits leaves the processor to others, which the
//! blocking calls of MPI do not.

use std::sync::{Mutex, PoisonError};
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use mpi::Threading;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::request::{Request, scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;

use crate::{Collective, CollectiveError, Environment, check_counts};

/// The time in which an exchange is tested without a pause.
const BUSY: Duration = Duration::from_millis(3);
/// The pause between two tests after that.
const PAUSE: Duration = Duration::from_micros(100);
/// The pause between two looks for a call of rank 0.
const CALL_PAUSE: Duration = Duration::from_millis(20);

/// The library, from its initialization to its end.
static UNIVERSE: Mutex<Option<Universe>> = Mutex::new(None);

/// The processes of MPI. One exchange runs at a time.
#[derive(Debug)]
pub(crate) struct Mpi {
    rank: usize,
    size: usize,
    turn: Mutex<()>,
}

impl Mpi {
    /// Initializes MPI in a process that a launcher has started with others.
    pub(crate) fn start(environment: &Environment) -> Result<Self, CollectiveError> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Multiple)
            .ok_or_else(|| CollectiveError::Engine("it was initialized before".to_owned()))?;
        let (rank, size) = (universe.world().rank() as usize, universe.world().size() as usize);
        *UNIVERSE.lock().unwrap_or_else(PoisonError::into_inner) = Some(universe);
        if threading < Threading::Serialized {
            let reason = format!("it offers {threading:?} threading, and training needs Serialized");
            return Err(CollectiveError::Engine(reason));
        }
        let Environment { launcher, size: started, .. } = *environment;
        if size != started {
            return Err(CollectiveError::NotConnected { launcher, started, seen: size });
        }
        Ok(Self { rank, size, turn: Mutex::new(()) })
    }
}

/// Ends MPI in this process.
pub(crate) fn finalize() {
    drop(UNIVERSE.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Waits for an exchange.
fn wait<'a, D: ?Sized, S: mpi::request::Scope<'a>>(mut request: Request<'a, D, S>) {
    let began = Instant::now();
    while let Err(again) = request.test() {
        request = again;
        if began.elapsed() < BUSY { yield_now() } else { sleep(PAUSE) }
    }
}

/// Converts the sizes of parts, and their starts, to those of MPI.
fn layout(counts: &[usize]) -> Result<(Vec<i32>, Vec<i32>), CollectiveError> {
    let total: usize = counts.iter().sum();
    let (mut sizes, mut starts, mut next) = (Vec::new(), Vec::new(), 0);
    for &count in counts {
        let count = i32::try_from(count).map_err(|_| CollectiveError::TooLarge(total))?;
        sizes.push(count);
        starts.push(next);
        next = i32::checked_add(next, count).ok_or(CollectiveError::TooLarge(total))?;
    }
    Ok((sizes, starts))
}

impl Mpi {
    /// Runs one exchange at a time.
    fn exclusively<R>(&self, work: impl FnOnce(&SimpleCommunicator) -> R) -> R {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        work(&SimpleCommunicator::world())
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn engine(&self) -> &'static str {
        "MPI"
    }

    fn all_gather_bytes(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let length = own.len() as u64;
        let mut lengths = vec![0u64; self.size];
        self.exclusively(|world| {
            scope(|scope| wait(world.immediate_all_gather_into(scope, &length, &mut lengths[..])));
        });
        let lengths: Vec<usize> = lengths.into_iter().map(|length| length as usize).collect();
        let (sizes, starts) = layout(&lengths)?;
        let mut all = vec![0u8; lengths.iter().sum()];
        self.exclusively(|world| {
            let mut parts = PartitionMut::new(&mut all[..], sizes, starts);
            scope(|scope| wait(world.immediate_all_gather_varcount_into(scope, own, &mut parts)));
        });
        let mut rest = &all[..];
        Ok(lengths.into_iter().map(|length| rest.split_off(..length).unwrap_or_default().to_vec()).collect())
    }

    fn exchange(&self, values: &[f32], counts: &[usize]) -> Result<Vec<f32>, CollectiveError> {
        check_counts(values.len(), counts, self.size)?;
        let received = vec![counts[self.rank]; self.size];
        let ((sizes, starts), (own_sizes, own_starts)) = (layout(counts)?, layout(&received)?);
        let mut all = vec![0f32; received.iter().sum()];
        self.exclusively(|world| {
            let given = Partition::new(values, sizes, starts);
            let mut taken = PartitionMut::new(&mut all[..], own_sizes, own_starts);
            scope(|scope| wait(world.immediate_all_to_all_varcount_into(scope, &given, &mut taken)));
        });
        Ok(all)
    }

    fn all_gather(&self, values: &mut [f32], counts: &[usize]) -> Result<(), CollectiveError> {
        check_counts(values.len(), counts, self.size)?;
        let (sizes, starts) = layout(counts)?;
        let start: usize = counts[..self.rank].iter().sum();
        let own = values[start..start + counts[self.rank]].to_vec();
        self.exclusively(|world| {
            let mut parts = PartitionMut::new(values, sizes, starts);
            scope(|scope| wait(world.immediate_all_gather_varcount_into(scope, &own[..], &mut parts)));
        });
        Ok(())
    }

    fn broadcast(&self, root: usize, values: &mut [f32]) -> Result<(), CollectiveError> {
        layout(&[values.len()])?;
        self.exclusively(|world| {
            let root = world.process_at_rank(root as i32);
            scope(|scope| wait(root.immediate_broadcast_into(scope, values)));
        });
        Ok(())
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        self.exclusively(|world| wait(world.immediate_barrier()));
        Ok(())
    }

    fn call(&self, message: &[u8]) -> Result<(), CollectiveError> {
        self.exclusively(|world| (1..self.size).for_each(|rank| world.process_at_rank(rank as i32).send(message)));
        Ok(())
    }

    fn await_call(&self) -> Result<Vec<u8>, CollectiveError> {
        loop {
            let called = self.exclusively(|world| {
                let leader = world.process_at_rank(0);
                leader.immediate_probe().map(|_| leader.receive_vec::<u8>().0)
            });
            match called {
                Some(message) => return Ok(message),
                None => sleep(CALL_PAUSE),
            }
        }
    }

    fn abort(&self, code: i32) -> ! {
        SimpleCommunicator::world().abort(code)
    }
}
