//! Tests of the whole program: recipes through the `flowmill` binary, on real files.
//!
//! Every test works in a folder of its own, on a copy of the miniature recipe (`tests/recipes/mini`: twelve short
//! utterances, a tiny model, a few steps). `FLOWMILL_TEST_SEED` replays the random tests, `FLOWMILL_TEST_KILLS` sets how
//! many times the crash test kills, `FLOWMILL_SOAK_MINUTES` how long the soak takes (`--ignored soak`).

mod alone;
mod audio_lengths;
mod bad_recipes;
mod batches;
mod best_checkpoint;
mod codecs;
mod columns;
mod commands;
mod conservation;
mod crash;
mod damage;
mod damage_training;
mod data_directories;
mod devices;
mod disk_full;
mod early_warnings;
mod exactness;
mod file_systems;
mod foreseen;
mod formats;
mod front_ends;
mod gone_files;
mod idempotence;
mod import;
mod last_save;
mod leakage;
mod log;
mod long_recordings;
mod lora;
mod model_card;
mod moved_data;
mod neural_codecs;
mod optimization;
mod parity;
mod phonemes;
mod precision;
mod prepared_codes;
mod readers;
mod reference;
mod replacement;
mod report;
mod resuming;
mod run_part;
mod scoring;
mod sfm;
mod soak;
mod sound_containers;
mod sources;
mod steering;
mod step_audio;
mod support;
mod token_front_ends;
mod toy_extractor;
mod toy_family;
mod train;
mod training_faults;
mod webdataset;
mod weight_external;
mod weight_files;
mod weight_names;
mod weight_objects;
