//! Codes of a neural codec through the binary: extracted, packed, inspected, and turned into sound.

use candle_core::Device;
use flowmill_corpus::Row;
use flowmill_corpus::shard::ShardReader;
use flowmill_extract::extractors::registry;
use flowmill_extract::{Column, State};

use crate::support::{Mini, flowmill, json};

const CODEC: [&str; 4] = [
    "--set",
    "tokens.extractor={kind: rvq-kmeans, k: 16, levels: 3, iterations: 3, griffin_lim_iterations: 4}",
    "--set",
    "pack.columns=[codes, text]",
];

#[test]
fn codes_are_packed_and_the_state_of_stage_2_decodes_them() {
    let mini = Mini::new();
    mini.run(&[&CODEC[..], &["--stop-stage", "pack"]].concat()).expect_code(0);
    let table = mini.exp("2-tokens/train/part-00000.parquet").display().to_string();
    let shown = flowmill(mini.folder(), &["inspect", &table]).expect_code(0);
    assert!(shown.stdout.contains("list<int32> [level, frame]"), "{}", shown.stdout);

    let shard = ShardReader::open(&mini.exp("3-pack/train/shard-00000.parquet")).unwrap();
    let column = Column::codes(3, 16, 75.0).spec;
    let rows: Vec<Row> = shard.iter(std::slice::from_ref(&column)).unwrap().collect::<Result<_, _>>().unwrap();
    assert!(!rows.is_empty());
    let state = State::load(&mini.exp("2-tokens/codebook.safetensors")).unwrap();
    let codec = registry().codec(&state, &Device::Cpu).unwrap().unwrap();
    for row in &rows {
        let codes = row.column("codes").unwrap();
        let audio = flowmill_audio::decode_file(mini.recording(&row.id)).unwrap();
        let samples = flowmill_audio::resample(&audio.mono(), audio.sample_rate, 24_000).unwrap().len();
        assert_eq!(codes.shape(), [3, samples.div_ceil(320)], "{}", row.id);
        assert_eq!(codec.decode(codes).unwrap().len(), codes.shape()[1] * 320);
    }
    let index = json(&mini.exp("3-pack/train/index.json"));
    assert_eq!(index["extractors"]["codes"]["kind"], "rvq-kmeans");
}

#[test]
fn codes_belong_to_stage_2_and_are_no_tokens_of_a_flow() {
    let mini = Mini::new();
    let embed = mini.run(&["--set", "embed.extractor={kind: rvq-kmeans}", "--dry-run"]).expect_code(2);
    embed.expect_words(&["embed.extractor.kind", "rvq-kmeans gives codes"]);
    let pack = mini.run(&["--set", "tokens.extractor={kind: rvq-kmeans, k: 16}", "--stop-stage", "pack"]);
    assert_ne!(pack.code, Some(0));
    pack.expect_words(&["tokens.extractor.kind", "speech_token"]);
}
