//! The stages that exist, in order: the one place that knows them all.

use flowmill_runner::Stage;
use flowmill_stage_average::AverageStage;
use flowmill_stage_embed::Embed;
use flowmill_stage_export::Export;
use flowmill_stage_pack::Pack;
use flowmill_stage_prep::Prep;
use flowmill_stage_tokens::Tokens;
use flowmill_stage_train::TrainStage;

/// All stages, by number.
pub fn all() -> Vec<Box<dyn Stage>> {
    vec![
        Box::new(Prep),
        Box::new(Embed),
        Box::new(Tokens),
        Box::new(Pack),
        Box::new(TrainStage),
        Box::new(AverageStage),
        Box::new(Export),
    ]
}
