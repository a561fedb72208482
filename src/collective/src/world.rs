//! The ranks that this process was started with.

use std::sync::{Arc, OnceLock};

use crate::{Alone, Collective, CollectiveError, Environment};

/// This process among those that were started together.
#[derive(Debug, Clone)]
pub struct World {
    /// The ranks.
    pub ranks: Arc<dyn Collective>,
    /// Number of this rank among those on its machine, from 0.
    pub local_rank: usize,
    /// Number of ranks on this machine.
    pub local_size: usize,
}

static WORLD: OnceLock<World> = OnceLock::new();

/// Returns the ranks that this process has [joined](World::join); a single one before that.
pub fn world() -> World {
    WORLD.get().cloned().unwrap_or_else(World::alone)
}

impl World {
    fn alone() -> Self {
        Self { ranks: Arc::new(Alone), local_rank: 0, local_size: 1 }
    }

    /// Connects with the other processes if a launcher has started several. A process that was started alone loads no engine.
    ///
    /// # Errors
    /// When there are several processes that cannot be connected.
    pub fn join() -> Result<Self, CollectiveError> {
        let Some(environment) = Environment::detect()? else { return Ok(world()) };
        let ranks = connect(&environment)?;
        let (local_rank, local_size) = (environment.local_rank, environment.local_size);
        Ok(WORLD.get_or_init(|| Self { ranks, local_rank, local_size }).clone())
    }

    /// Returns whether there are other ranks.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.ranks.size() > 1
    }

    /// Returns this rank's share of the processors of its machine.
    #[must_use]
    pub fn own_threads(&self) -> usize {
        let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (all / self.local_size.max(1)).max(1)
    }

    /// Returns whether this is rank 0.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.ranks.rank() == 0
    }
}

#[cfg(feature = "mpi")]
fn connect(environment: &Environment) -> Result<Arc<dyn Collective>, CollectiveError> {
    if !environment.is_mpi {
        return Err(CollectiveError::Launcher { launcher: environment.launcher, size: environment.size });
    }
    Ok(Arc::new(crate::mpi_engine::Mpi::start(environment)?))
}

#[cfg(not(feature = "mpi"))]
fn connect(environment: &Environment) -> Result<Arc<dyn Collective>, CollectiveError> {
    let wanted = format!("{} started {} processes", environment.launcher, environment.size);
    Err(CollectiveError::NotBuilt { wanted })
}

/// Leaves the other ranks in order, so that the launcher does not count this process as failed. Nothing is exchanged afterwards.
pub fn leave() {
    #[cfg(feature = "mpi")]
    crate::mpi_engine::finalize();
}
