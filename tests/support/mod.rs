//! The helpers that the tests share: the binary, the miniature recipe, sources of stage 0, and comparing trees of files.

pub mod corpus;
pub mod disturbance;
pub mod errno;
pub mod flowmill;
pub mod gated;
pub mod json;
pub mod json_schema;
pub mod mini;
pub mod muxers;
pub mod parquet;
pub mod random;
pub mod tar;
pub mod training;
pub mod tree;
pub mod yaml;

pub use flowmill::{Outcome, Verdict, flowmill};
pub use json::json;
pub use mini::Mini;
pub use tar::Tar;
pub use tree::Tree;
