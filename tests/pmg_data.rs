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
    corpus.expect_rejected("user_zoo", "target in the history", &["lion_face"]);
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
