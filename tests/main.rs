//! Tests of the whole program: recipes through the `flowmill` binary, on real files.
//!
//! Every test works in a folder of its own, on a copy of the miniature recipe (`tests/recipes/mini`: twelve short
//! utterances, a tiny model, a few steps). `FLOWMILL_TEST_SEED` replays the random tests, `FLOWMILL_TEST_KILLS` sets how
//! many times the crash test kills, `FLOWMILL_SOAK_MINUTES` how long the soak takes (`--ignored soak`).

mod alone;
mod audio_lengths;
mod bad_recipes;
mod batches;
mod commands;
mod crash;
mod data_directories;
mod disk_full;
mod exactness;
mod formats;
mod front_ends;
mod idempotence;
mod import;
mod leakage;
mod long_recordings;
mod lora;
mod optimisation;
mod parity;
mod precision;
mod report;
mod sfm;
mod soak;
mod steering;
mod step_audio;
mod support;
mod token_front_ends;
mod train;
mod training_faults;
mod webdataset;
mod weight_files;
