//! Images with captions and users with histories through the program: the layouts, bad images, and shards that are read back.

use std::fs;

use crate::support::corpus::Corpus;
use crate::support::mini::repository;
use crate::support::{Outcome, flowmill, parquet};

/// Runs a recipe of these sections up to a stage.
fn run(corpus: &Corpus, sections: &str, stop: &str) -> Outcome {
    corpus.write("recipe.yaml", format!("name: c\nmax_rejected: 1\n{sections}"));
    flowmill(corpus.folder.path(), &["run", ".", "--stop-stage", stop])
}

/// A folder of `data/` or of the tests' images.
fn data(name: &str) -> String {
    repository().join(name).display().to_string()
}

/// The section `prep` of one source, everything in the training split.
fn prep(source: &str) -> String {
    format!("prep:\n  data: [{source}]\n  split: {{fractions: {{}}}}\n")
}

/// A table of stage 0, relative to its folder.
fn table(corpus: &Corpus, name: &str) -> std::path::PathBuf {
    corpus.path("exp/c/0-prep").join(name)
}

#[test]
fn stickers_and_photos_are_rows_with_captions() {
    let corpus = Corpus::new();
    let source = |name: &str| format!("{{dir: {}, format: images}}", data(name));
    let both = format!("{}, {}", source("data/stickers"), source("data/photos"));
    run(&corpus, &prep(&both), "0").expect_code(0).expect_rows(68, 68, 0);
    let rows = corpus.rows("text");
    assert_eq!(rows["grinning_face"], "a yellow cartoon face with a wide open grin");
    assert_eq!(rows["cat_portrait"], "a close portrait of a ginger tabby cat looking at the camera");
    let media = parquet::text_lists(&table(&corpus, "train/media-00000.parquet"), "images");
    assert!(media.iter().all(|images| images.len() == 1));
    let columns = table(&corpus, "train/columns-00000.parquet");
    let emotions = parquet::texts(&columns, "emotion");
    assert_eq!(emotions.iter().filter(|emotion| emotion.is_empty()).count(), 24, "photos have no emotion");
    assert_eq!(emotions.iter().collect::<std::collections::BTreeSet<_>>().len(), 9);
    assert!(parquet::text_lists(&columns, "keywords").iter().all(|words| words.len() >= 3));
    // Nothing changed, so nothing runs. Another caption is another row.
    run(&corpus, &prep(&both), "0").expect_code(0).expect_nothing_to_do();
}

#[test]
fn awkward_images_are_read_or_rejected_with_the_reason() {
    let corpus = Corpus::new();
    let edge = repository().join("tests/data/images");
    for file in fs::read_dir(&edge).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".json") {
            corpus.write(&format!("d/{name}"), fs::read(&file).unwrap());
            let stem = name.rsplit_once('.').unwrap().0;
            corpus.write(&format!("d/{stem}.txt"), format!("a caption of {stem}"));
        }
    }
    corpus.write("d/mute.png", fs::read(edge.join("gray8.png")).unwrap());
    corpus.write("d/alone.txt", "no image");
    let outcome = run(&corpus, &prep("{dir: d, format: images}"), "0");
    outcome.expect_code(0).expect_rows(13, 8, 5);
    let good = ["animated", "cmyk", "gray16", "gray8", "one_pixel", "png_named", "sticker", "wide_128x37"];
    assert_eq!(corpus.ids(), good);
    corpus.expect_rejected("truncated", "unreadable picture", &["truncated.png"]);
    corpus.expect_rejected("empty", "empty file instead of a picture", &["empty.png"]);
    // The caption of text.png is the text itself.
    corpus.expect_rejected("text", "unusable picture", &["text.png"]);
    corpus.expect_rejected("mute.png", "no caption", &[]);
    corpus.expect_rejected("alone.txt", "no image", &[]);
    // A repaired image is a row.
    corpus.write("d/empty.png", fs::read(edge.join("gray8.png")).unwrap());
    run(&corpus, &prep("{dir: d, format: images}"), "0").expect_code(0).expect_rows(13, 9, 4);
}

#[test]
fn users_are_rows_with_their_target_and_history() {
    let corpus = Corpus::new();
    let source = |name: &str, split: &str| {
        format!("{{dir: {}/users_{name}.json, format: histories, split: {split}}}", data("data/stickers"))
    };
    let sections = |sources: String| format!("prep:\n  data: [{sources}]\n  split: {{by: given}}\n");
    let sources = format!("{}, {}", source("train", "train"), source("test", "dev"));
    run(&corpus, &sections(sources.clone()), "0").expect_code(0).expect_rows(10, 9, 1);
    corpus.expect_rejected("user_zoo", "target in the history", &["fox_face"]);
    assert_eq!(parquet::texts(&table(&corpus, "dev/part-00000.parquet"), "utt"), ["user_calm", "user_surprised"]);
    assert_eq!(parquet::texts(&table(&corpus, "dev/part-00000.parquet"), "spk"), ["user_calm", "user_surprised"]);
    assert_eq!(corpus.rows("text")["user_cat"], "a yellow cartoon cat with red hearts for eyes");
    let columns = table(&corpus, "train/columns-00000.parquet");
    let at = parquet::texts(&columns, "utt").iter().position(|id| id == "user_cat").unwrap();
    let items = parquet::text_lists(&columns, "item_ids")[at].clone();
    let expected = ["cat_heart_eyes", "cat_face", "weary_cat", "crying_cat", "pouting_cat", "heart_eyes", "cat_face"];
    assert_eq!(items, expected);
    let captions = parquet::text_lists(&columns, "history_captions")[at].clone();
    assert_eq!((captions.len(), captions[0].as_str()), (6, "a yellow cartoon cat face with whiskers"));
    assert_eq!(parquet::texts(&columns, "dialogue")[at], "I saw your kitten video three times today.");
    assert_eq!(parquet::texts(&columns, "emotion")[at], "love");
    let media = table(&corpus, "train/media-00000.parquet");
    let images = parquet::text_lists(&media, "images")[at].clone();
    let names: Vec<&str> = images.iter().map(|path| path.rsplit_once('/').unwrap().1).collect();
    assert_eq!(names, expected.map(|item| format!("{item}.png")));
    let with_zoo = sources.replace("split: train", "split: train, allow_repeats: true");
    run(&corpus, &sections(with_zoo), "0").expect_code(0).expect_rows(10, 10, 0);
}

#[test]
fn bad_users_are_rejected_with_their_reasons() {
    let corpus = Corpus::new();
    corpus.write("users.json", fs::read(repository().join("tests/data/images/users_bad.json")).unwrap());
    let source = format!("dir: users.json, format: histories, images: {}", data("data/stickers"));
    run(&corpus, &prep(&format!("{{{source}}}")), "0").expect_code(0).expect_rows(8, 1, 7);
    corpus.expect_rejected("missing_image", "unreadable picture", &["does_not_exist.png"]);
    corpus.expect_rejected("empty_history", "no history", &[]);
    corpus.expect_rejected("no_target", "no target", &[]);
    corpus.expect_rejected("target_in_history", "target in the history", &["angry_red_face"]);
    corpus.expect_rejected("empty_caption", "no caption", &[]);
    corpus.expect_rejected("user_cat", "repeated user", &["0"]);
    corpus.expect_rejected("path_escape", "image outside of the folder", &["etc/hostname"]);
    // Another entry of a user is another row of the same group.
    run(&corpus, &prep(&format!("{{{source}, repeated_users: true}}")), "0").expect_code(0).expect_rows(8, 2, 6);
    assert_eq!(corpus.ids(), ["user_cat", "user_cat-2"]);
    assert_eq!(corpus.rows("spk")["user_cat-2"], "user_cat");
}

#[test]
fn keys_of_users_are_refused_elsewhere() {
    let corpus = Corpus::new();
    let source = format!("{{dir: {}, format: images, allow_repeats: true}}", data("data/photos"));
    run(&corpus, &prep(&source), "0").expect_code(2).expect_words(&["allow_repeats", "histories"]);
    let source = format!("{{dir: {}/users.json, format: histories, images: nowhere}}", data("data/photos"));
    run(&corpus, &prep(&source), "0").expect_code(2).expect_words(&["nowhere"]);
}

#[test]
fn images_and_captions_of_users_are_packed() {
    let corpus = Corpus::new();
    let source = format!("{{dir: {}/users.json, format: histories}}", data("data/photos"));
    let pack = "pack:\n  columns: [text, item_ids, history_captions, image_data]\n";
    run(&corpus, &format!("{}{pack}", prep(&source)), "3").expect_code(0);
    let shards: Vec<_> =
        fs::read_dir(corpus.path("exp/c/3-pack/train")).unwrap().map(|file| file.unwrap().path()).collect();
    let shard = shards.iter().find(|path| path.extension().is_some_and(|ending| ending == "parquet")).unwrap();
    let ids = parquet::texts(shard, "utt");
    assert_eq!(ids.len(), 6);
    let at = ids.iter().position(|id| id == "photo_cat").unwrap();
    assert_eq!(parquet::text_lists(shard, "item_ids")[at].len(), 6);
    let images = parquet::binary_lists(shard, "image_data")[at].clone();
    let target = fs::read(repository().join("data/photos/img/cat_portrait.jpg")).unwrap();
    assert_eq!((images.len(), &images[0]), (6, &target));
}

/// The values of a Python peer for the extractors of images.
fn expected() -> serde_json::Value {
    crate::support::json(&repository().join("tests/golden/image_extractors.json"))
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|value| value.as_f64().map_or_else(|| numbers(value), |x| vec![x]))
        .collect()
}

#[track_caller]
fn expect_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let largest = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(largest <= tolerance, "{largest} > {tolerance}");
}

/// Writes the weights of a golden file as a folder of a published network.
fn network(corpus: &Corpus, folder: &str, golden: &str, config: &serde_json::Value, weights: &str) {
    let bytes = fs::read(repository().join("tests/golden").join(golden)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let named =
        file.tensors().into_iter().filter_map(|(name, tensor)| Some((name.strip_prefix("param.")?.to_owned(), tensor)));
    corpus.write(&format!("{folder}/{weights}"), safetensors::serialize(named, None).unwrap());
    corpus.write(&format!("{folder}/config.json"), config.to_string());
}

/// The weights of a golden autoencoder of two levels as a single file, with a weight of another part.
fn single_file(golden: &str) -> Vec<u8> {
    let bytes = fs::read(repository().join("tests/golden").join(golden)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let old = |name: &str| {
        let name = name
            .replace("down_blocks.", "down.")
            .replace("up_blocks.0", "up.1_")
            .replace("up_blocks.1", "up.0_")
            .replace("1_", "1")
            .replace("0_", "0")
            .replace("downsamplers.0", "downsample")
            .replace("upsamplers.0", "upsample")
            .replace("mid_block.resnets.0", "mid.block_1")
            .replace("mid_block.resnets.1", "mid.block_2")
            .replace("mid_block.attentions.0", "mid.attn_1")
            .replace("resnets.", "block.")
            .replace("conv_shortcut", "nin_shortcut")
            .replace("conv_norm_out", "norm_out")
            .replace("group_norm", "norm")
            .replace("to_out.0", "proj_out");
        ["q", "k", "v"].iter().fold(name, |name, own| name.replace(&format!(".to_{own}."), &format!(".{own}.")))
    };
    let named = file.tensors().into_iter().filter_map(|(name, tensor)| {
        Some((format!("first_stage_model.{}", old(name.strip_prefix("param.")?)), tensor))
    });
    let other = ("cond_stage_model.logit_scale".to_owned(), file.tensor("param.quant_conv.bias").unwrap());
    safetensors::serialize(named.chain([other]), None).unwrap()
}

/// Two images, one of which is not square, and a user with both.
fn two_images(corpus: &Corpus) {
    let of = |name: &str| fs::read(repository().join(name)).unwrap();
    corpus.write("d/cat.png", of("data/stickers/stickers/cat_face.png"));
    corpus.write("d/wide.jpg", of("tests/data/images/wide_128x37.jpg"));
    let item = |id: &str, path: &str| {
        format!("{{\"item_id\": \"{id}\", \"caption\": \"a {id}\", \"image_path\": \"{path}\"}}")
    };
    let (cat, wide) = (item("cat", "cat.png"), item("wide", "wide.jpg"));
    let user = |name: &str, target: &str, history: &str| {
        format!("{{\"user_id\": \"{name}\", \"target_item_info\": {target}, \"history_items_info\": [{history}]}}")
    };
    corpus.write("d/users.json", format!("[{}, {}]", user("a", &cat, &wide), user("b", &wide, &cat)));
}

const USERS: &str = "prep:\n  data: [{dir: d/users.json, format: histories}]\n  split: {fractions: {}}\n";

#[test]
fn pixels_are_those_of_pillow_and_torchvision() {
    let corpus = Corpus::new();
    two_images(&corpus);
    let extractor = |more: &str| format!("{USERS}embed: {{extractor: {{kind: pixels, size: 12{more}}}}}\n");
    run(&corpus, &extractor(""), "1").expect_code(0);
    let table = corpus.path("exp/c/1-embed/train/part-00000.parquet");
    expect_close(&parquet::lists(&table, "pixels")[0], &numbers(&expected()["squash_bicubic_12"]), 1.0);
    run(&corpus, &extractor(", resize: center-crop, filter: bilinear"), "1").expect_code(0);
    // Decoders of JPEG may differ by some steps.
    expect_close(&parquet::lists(&table, "pixels")[1], &numbers(&expected()["crop_bilinear_12_wide"]), 4.0);
}

#[test]
fn latents_are_those_of_diffusers() {
    let corpus = Corpus::new();
    two_images(&corpus);
    let config = &expected()["vae_config"];
    network(&corpus, "sd/vae", "sd_vae.safetensors", config, "diffusion_pytorch_model.safetensors");
    let extractor =
        |more: &str| format!("{USERS}tokens: {{extractor: {{kind: vae-latents, weights: sd, size: {more}}}}}\n");
    run(&corpus, &extractor("16"), "2").expect_code(0);
    let table = corpus.path("exp/c/2-tokens/train/part-00000.parquet");
    let (mean, deviation) = (parquet::lists(&table, "latent_mean"), parquet::lists(&table, "latent_deviation"));
    let (of_mean, of_deviation) = (numbers(&expected()["latent_mean_16"]), numbers(&expected()["latent_deviation_16"]));
    // Images are equal within one step of 255.
    let largest = of_mean.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    expect_close(&mean[0], &of_mean, 0.01 * largest);
    expect_close(&deviation[0], &of_deviation, 0.01 * of_deviation.iter().fold(0.0, |a: f64, b| a.max(*b)));
    assert_eq!((parquet::numbers(&table, "latent_mean_rows"), mean[1].len()), (vec![8.0, 8.0], 8 * 8 * 4));
    run(&corpus, &extractor("16"), "2").expect_code(0).expect_nothing_to_do();
    // The same weights in a single file, under the names of the first implementation.
    corpus.write("one/sd.safetensors", single_file("sd_vae.safetensors"));
    corpus.write("one/config.json", config.to_string());
    let single = extractor("16").replace("weights: sd,", "weights: one/sd.safetensors,");
    run(&corpus, &single, "2").expect_code(0);
    assert_eq!(parquet::lists(&table, "latent_mean"), mean);
    run(&corpus, &extractor("15"), "2").expect_no_panic().expect_words(&["15", "multiple"]);
    fs::remove_file(corpus.path("sd/vae/diffusion_pytorch_model.safetensors")).unwrap();
    assert_ne!(run(&corpus, &extractor("32"), "2").expect_no_panic().code, Some(0));
}

#[test]
fn embeddings_are_those_of_transformers() {
    let corpus = Corpus::new();
    two_images(&corpus);
    network(&corpus, "clip", "clip.safetensors", &expected()["clip_config"], "model.safetensors");
    run(&corpus, &format!("{USERS}embed: {{extractor: {{kind: clip-images, weights: clip}}}}\n"), "1").expect_code(0);
    let table = corpus.path("exp/c/1-embed/train/part-00000.parquet");
    let (found, expected) = (parquet::lists(&table, "image_embeddings"), numbers(&expected()["clip_embeddings"]));
    expect_close(&found[0], &expected, 0.01);
    assert_eq!(parquet::numbers(&table, "image_embeddings_images"), [2.0, 2.0]);
    let half = expected.len() / 2;
    expect_close(&found[1], &[&expected[half..], &expected[..half]].concat(), 0.01);
}

#[test]
fn prompts_about_histories_are_tokens() {
    let corpus = Corpus::new();
    two_images(&corpus);
    let extractor = |settings: &str| format!("{USERS}embed: {{extractor: {{kind: prompt-tokens, {settings}}}}}\n");
    run(&corpus, &extractor("max_sequence_length: 60"), "1").expect_code(0);
    let table = corpus.path("exp/c/1-embed/train/part-00000.parquet");
    let (ids, lengths) = (parquet::lists(&table, "input_ids"), parquet::numbers(&table, "token_len"));
    for (ids, length) in ids.iter().zip(&lengths) {
        let length = *length as usize;
        assert_eq!((ids.len(), ids[0]), (60, 1.0));
        assert!(ids[1..length].iter().all(|id| *id >= 3.0) && ids[length..].iter().all(|id| *id == 2.0), "{ids:?}");
    }
    // The prompts differ in one word.
    let differ = ids[0].iter().zip(&ids[1]).filter(|(a, b)| a != b).count();
    assert_eq!((lengths[0], differ), (lengths[1], 1));
    // A caption instead, with the tokenizer of a model's folder.
    corpus.write("llama/tokenizer.model", fs::read(repository().join("tests/golden/tokenizers/bpe.model")).unwrap());
    run(&corpus, &extractor("text: caption, tokenizer: llama, max_sequence_length: 12"), "1").expect_code(0);
    assert_eq!(parquet::lists(&table, "input_ids")[0].len(), 12);
    assert!(parquet::numbers(&table, "token_len").iter().all(|length| (2.0..=10.0).contains(length)));
    // Both prompts are too long now; the reason says by how much.
    run(&corpus, &extractor("tokenizer: llama, max_sequence_length: 20"), "1").expect_no_panic();
    let tables = [".staging/%rejected.parquet", "rejected.parquet"].map(|name| corpus.path("exp/c/1-embed").join(name));
    let reasons = parquet::texts(tables.iter().find(|table| table.exists()).unwrap(), "reason");
    assert!(reasons.len() == 2 && reasons.iter().all(|reason| reason.contains("more than the 18")), "{reasons:?}");
    // What is no tokenizer is one clear error.
    corpus.write("bad.json", "{}");
    for bad in ["bad.json", "nowhere.model", "d/cat.png"] {
        assert_ne!(
            run(&corpus, &extractor(&format!("tokenizer: {bad}")), "1").expect_no_panic().code,
            Some(0),
            "{bad}"
        );
    }
}

#[test]
fn ids_are_those_of_sentencepiece_and_tokenizers() {
    let expected = crate::support::json(&repository().join("tests/golden/tokenizers/expected.json"));
    // Stage 0 writes texts on one line, with one blank between words.
    let is_kept = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ") == text;
    let texts = expected["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).enumerate();
    let texts: Vec<(usize, &str)> = texts.filter(|(_, text)| is_kept(text)).collect();
    assert!(texts.len() > 8);
    let corpus = Corpus::new();
    corpus.write("d/x.png", fs::read(repository().join("tests/data/images/gray8.png")).unwrap());
    let item = |(at, text): &(usize, &str)| serde_json::json!({ "item_id": format!("t{at:02}"), "image_path": "x.png", "caption": text });
    corpus.write("d/items.json", serde_json::json!(texts.iter().map(item).collect::<Vec<_>>()).to_string());
    for (name, file, begin) in
        [("bpe", "bpe.model", true), ("unigram", "unigram.model", true), ("tokenizer.json", "tokenizer.json", false)]
    {
        let tokenizer = repository().join("tests/golden/tokenizers").join(file);
        let extractor = format!("{{kind: prompt-tokens, text: caption, tokenizer: {}}}", tokenizer.display());
        let sections = format!("{}embed: {{extractor: {extractor}}}\n", prep("{dir: d, format: images}"));
        run(&corpus, &sections, "1").expect_code(0);
        let table = corpus.path("exp/c/1-embed/train/part-00000.parquet");
        let (found, lengths) = (parquet::lists(&table, "input_ids"), parquet::numbers(&table, "token_len"));
        for (((at, text), ids), length) in texts.iter().zip(&found).zip(&lengths) {
            let own = numbers(&expected[name]["ids"][at]);
            let own = if begin { [vec![1.0], own].concat() } else { own };
            assert_eq!(ids[..*length as usize], own, "{name}: {text}");
        }
    }
}

#[test]
fn everything_about_users_is_packed() {
    let corpus = Corpus::new();
    two_images(&corpus);
    let sections = format!(
        "{USERS}embed: {{extractor: {{kind: prompt-tokens, max_sequence_length: 60}}}}\n\
         tokens: {{extractor: {{kind: vae-latents, weights: random, size: 16}}}}\n\
         pack: {{columns: [text, input_ids, token_len, latent_mean, latent_deviation, image_data, item_ids]}}\n"
    );
    run(&corpus, &sections, "3").expect_code(0);
    let shards = fs::read_dir(corpus.path("exp/c/3-pack/train")).unwrap().map(|file| file.unwrap().path());
    let shard = shards.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "parquet")).unwrap();
    assert_eq!(parquet::texts(&shard, "text"), ["a cat", "a wide"]);
    assert_eq!(parquet::lists(&shard, "input_ids")[0].len(), 60);
    assert_eq!(parquet::lists(&shard, "latent_mean")[0].len(), 2 * 2 * 4);
    assert_eq!(parquet::text_lists(&shard, "item_ids"), [["cat", "wide"], ["wide", "cat"]]);
    assert!(parquet::binary_lists(&shard, "image_data").iter().all(|images| images.len() == 2));
}

#[test]
fn public_datasets_are_read_from_their_own_files() {
    let corpus = Corpus::new();
    let photo = fs::read(repository().join("data/photos/img/cat_eye.jpg")).unwrap();
    for name in ["1", "2", "3", "4", "5"] {
        corpus.write(&format!("f/40K/{name}.jpg"), &photo);
        corpus.write(&format!("p/images/{name}.jpg"), &photo);
        corpus.write(&format!("s/Images/cats/{name}.jpg"), &photo);
        corpus.write(&format!("s/Images/dogs/{name}.jpg"), &photo);
    }
    let scores = "worker, imagePair, score\nW, 1.jpg, 5\nW, 2.jpg, 3\nV, 5.jpg, 4\nW, 3.jpg, 2\nW, 4.jpg, 3\nW, 5.jpg, 4\nW, 1.jpg, 4\nW, 9.jpg, 5\nW, , x\n";
    corpus.write("f/FLICKR-AES_image_labeled_by_each_worker.csv", scores);
    corpus.write("f/FLICKR_captions.json", r#"{"1": "one", "2": "two", "4": "four", "5": "five"}"#);
    corpus.write("f/FLICKR_styles.json", r#"[{"worker": "W", "style": "calm"}]"#);
    // W likes 1 2 4 5 1 9: the windows 124-5, 245-1 and 451-9, whose image is missing. V likes one image.
    run(&corpus, &prep("{dir: f, format: flickr-aes}"), "0").expect_code(0).expect_rows(5, 2, 3);
    assert_eq!(corpus.ids(), ["W-0", "W-1"]);
    assert_eq!(corpus.rows("spk")["W-1"], "W");
    assert_eq!(corpus.rows("text")["W-1"], "one");
    let columns = table(&corpus, "train/columns-00000.parquet");
    assert_eq!(parquet::text_lists(&columns, "item_ids")[0], ["5", "1", "2", "4"]);
    assert_eq!(parquet::texts(&columns, "style"), ["calm", "calm"]);
    corpus.expect_rejected("W-2", "missing image", &["9"]);
    corpus.expect_rejected("V", "too few items", &["4"]);

    corpus.write("p/user_data.txt", "u,1;2;3;4;1,outfit\nv,1;2,o\nno comma\n");
    corpus.write("p/captions_sampled.json", r#"{"1": "one", "2": "two", "3": "three", "4": "four"}"#);
    run(&corpus, &prep("{dir: p, format: pog}"), "0").expect_code(0).expect_rows(4, 2, 2);
    assert_eq!(corpus.ids(), ["u-0", "u-1"]);

    let captions: Vec<String> = ["cats", "dogs"]
        .iter()
        .flat_map(|topic| (1..=5).map(move |at| format!("\"{topic}/{at}.jpg\": \"{topic} {at}\"")))
        .collect();
    corpus.write("s/ser30k_captions.json", format!("{{{}}}", captions.join(", ")));
    run(&corpus, &prep("{dir: s, format: ser30k}"), "0").expect_code(0).expect_rows(6, 6, 0);
    assert!(corpus.rows("text").iter().all(|(id, text)| id.starts_with("cats") == text.starts_with("dogs")));
    run(&corpus, &prep("{dir: d, format: pog}"), "0").expect_no_panic();
}

#[test]
fn the_configuration_of_the_public_code_becomes_a_recipe() {
    let corpus = Corpus::new();
    let config = "dataset: {name: SER, train_json: train.json, val_json: val.json, image_dir: .}\n\
                  model: {stable_diffusion: ./sd, llama: ./llama}\n\
                  training: {num_train_epochs: 3, train_batch_size: 6, lr_scheduler: linear, mixed_precision: bf16, odd: 1}\n\
                  pmg: {num_image_prompt: 2, num_prefix_prompt: 2, max_sequence_length: 600, image_size: 512}\n";
    corpus.write("config.yaml", config);
    flowmill(corpus.folder.path(), &["convert-config", "config.yaml"])
        .expect_code(0)
        .expect_words(&["recipe.yaml", "no counterpart: training.odd: 1"]);
    let recipe = fs::read_to_string(corpus.path("recipe.yaml")).unwrap();
    for line in ["prompt-tokens", "vae-latents", "image_size: 512", "max_epochs: 3", "#   training.odd: 1"] {
        assert!(recipe.contains(line), "{line}\n{recipe}");
    }
}
