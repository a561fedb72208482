//! The list of all stages, in order. No other place contains it.

use flowmill_family::Registry;
use flowmill_runner::Stage;
use flowmill_stage_average::AverageStage;
use flowmill_stage_embed::Embed;
use flowmill_stage_export::Export;
use flowmill_stage_pack::Pack;
use flowmill_stage_prep::Prep;
use flowmill_stage_tokens::Tokens;
use flowmill_stage_train::TrainStage;

/// Returns all model families.
pub fn families() -> Registry {
    flowmill_families::registry()
}

/// All extractors.
pub fn extractors() -> flowmill_extract::Registry {
    flowmill_networks::extractors::registry()
}

/// All stages, by number.
pub fn all() -> Vec<Box<dyn Stage>> {
    let (families, extractors) = (families(), extractors());
    vec![
        Box::new(Prep),
        Box::new(Embed::new(extractors.clone())),
        Box::new(Tokens::new(extractors.clone())),
        Box::new(Pack::new(extractors.clone()).with_families(families.clone())),
        Box::new(TrainStage::new(families.clone()).with_extractors(extractors)),
        Box::new(AverageStage),
        Box::new(Export::new(families)),
    ]
}
