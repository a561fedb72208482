//! `flowmill report`: one page that needs nothing but itself, of finished, unfinished and damaged experiments.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::training::Training;
use crate::support::{Mini, flowmill};

/// Names of elements that have no end.
const VOID: [&str; 2] = ["meta", "img"];

/// Checks that elements are closed in the order in which they were opened, and gives the names of all.
fn elements(page: &str) -> Vec<String> {
    let (mut open, mut all, mut rest) = (Vec::new(), Vec::new(), page);
    while let Some(start) = rest.find('<') {
        let after = &rest[start + 1..];
        let end = after.find('>').expect("a tag ends");
        let tag = &after[..end];
        rest = &after[end + 1..];
        let name: String = tag.trim_start_matches('/').chars().take_while(|c| c.is_alphanumeric()).collect();
        if tag.starts_with('!') {
            continue;
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closed out of order near {}", &after[..after.len().min(80)]);
            continue;
        }
        all.push(name.clone());
        if !VOID.contains(&name.as_str()) && !tag.ends_with('/') {
            if name == "script" || name == "style" {
                // Nothing in it is markup.
                rest = &rest[rest.find(&format!("</{name}>")).expect("it ends")..];
            }
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    all
}

/// Checks that a page is whole and asks nothing of the network.
fn whole(page: &str) -> Vec<String> {
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    for reference in ["http://", "https://", "src=\"/", "@import", "url("] {
        assert!(!page.contains(reference), "{reference}");
    }
    elements(page)
}

fn report(mini: &Mini) -> String {
    mini.flowmill("report", &[]).expect_code(0).expect_words(&["report.html"]);
    fs::read_to_string(mini.exp("report.html")).unwrap()
}

fn count(elements: &[String], name: &str) -> usize {
    elements.iter().filter(|element| *element == name).count()
}

#[test]
fn a_finished_experiment_is_shown_in_full_and_the_same_every_time() {
    let mini = Mini::new();
    fs::write(mini.recording("2414-128291-0003"), "no sound").unwrap();
    let settings =
        ["--set", "max_rejected=0.2", "--set", "train.sample_every=6", "--set", "train.sample_count=1", "--quiet"];
    mini.run(&settings).expect_code(0);
    let page = report(&mini);
    let elements = whole(&page);
    for words in [
        "What ran",
        "flowmill run . --set",
        "The training is finished.",
        "0-prep: settings",
        "recipe:data/wav.scp",
        "validation",
        "Learning rate",
        "Gradient norm",
        "training, step 6",
        "training, step 12",
        "exported model",
        "2414-128291-0003",
        "in the average",
        "mean of the best 2: steps",
        "Environment",
        "distance of the model",
        "trivial answer: mean per unit",
        "Steps a second",
        "frames a second",
        "in training.",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(page.contains("<title>mini</title>") && page.contains("<h1>mini</h1>"), "the recipe's name");
    // Loss, learning rate, gradient norm, four of speed and memory; one sample at two steps, two of the exported model, and
    // two recordings.
    assert_eq!((count(&elements, "svg"), count(&elements, "audio"), count(&elements, "img")), (7, 6, 4));
    let transcripts = fs::read_to_string(mini.path("data/text")).unwrap();
    for id in fs::read_to_string(mini.path("lists/dev")).unwrap().lines() {
        let transcript = transcripts.lines().find_map(|line| line.strip_prefix(id)?.strip_prefix(' ')).unwrap();
        assert!(page.contains(&transcript.replace('\'', "&#39;")) || page.contains(transcript), "{transcript}");
        let recording = STANDARD.encode(fs::read(mini.recording(id)).unwrap());
        assert!(page.contains(&format!("data:audio/flac;base64,{recording}")), "{id}");
    }
    assert!(page.contains("data:audio/wav;base64,UklGR") && page.contains("data:image/png;base64,iVBORw0KGgo"));
    assert_eq!(page, report(&mini), "the same experiment gives the same page");
    let elsewhere = mini.path("page.html");
    let arguments = ["report", "exp/mini", "--out", elsewhere.to_str().unwrap()];
    flowmill(mini.folder(), &arguments).expect_code(0);
    assert_eq!(page, fs::read_to_string(elsewhere).unwrap());
}

#[test]
fn a_killed_training_and_a_damaged_experiment_are_shown_as_far_as_they_go() {
    let mini = Mini::packed();
    assert!(whole(&report(&mini)).len() > 20);
    let endless =
        ["--set", "train.max_steps=10000000", "--set", "train.sample_every=5", "--set", "train.sample_count=1"];
    let training = Training::start(&mini, &endless).listening();
    training.ctl(&["lr", "1e-4"]).expect_code(0);
    while !mini.exp("4-train/.staging/train/state/samples-000010").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let running = report(&mini);
    let process = format!("(process {})", training.id());
    for words in ["The training runs", "flowmill run . --stop-stage", &format!("runs {process}")] {
        assert!(running.contains(words), "{words}");
    }
    training.kill();
    let metrics = mini.exp("4-train/.staging/train/state/metrics.jsonl");
    let mut torn = fs::read(&metrics).unwrap();
    torn.extend(b"{\"step\":99,\"lo");
    fs::write(&metrics, torn).unwrap();
    let page = report(&mini);
    let elements = whole(&page);
    let died = format!("died {process}");
    let words = ["The training died", &died, "lr 0.0001", "training, step 5", "1 lines of the metrics cannot be read"];
    for words in words {
        assert!(page.contains(words), "{words}");
    }
    assert!(count(&elements, "svg") >= 3 && count(&elements, "audio") >= 3);

    let hostile = "embed.fit_on=<img src=x onerror=alert(1)>";
    mini.run(&["--stop-stage", "0", "--set", hostile]).expect_code(0);
    let journal = fs::read_to_string(mini.exp("journal.jsonl")).unwrap();
    let journal = format!("{journal}<script>alert(1)</script>\n");
    for (file, content) in [
        ("0-prep/stage.json", "{"),
        ("0-prep/receipts/read.json", "\u{0}"),
        ("3-pack/train/index.json", "[]"),
        ("journal.jsonl", journal.as_str()),
    ] {
        fs::write(mini.exp(file), content).unwrap();
    }
    fs::write(&metrics, [0xff, 0xfe, b'\n']).unwrap();
    let page = report(&mini);
    whole(&page);
    assert!(page.contains("&lt;img src=x") && !page.contains("<script>alert"));
}

#[test]
fn what_is_no_experiment_is_refused() {
    let mini = Mini::new();
    mini.flowmill("report", &[]).expect_code(2);
    flowmill(mini.folder(), &["report", "nowhere"]).expect_code(2).expect_words(&["nowhere"]);
    fs::create_dir(mini.path("empty")).unwrap();
    flowmill(mini.folder(), &["report", "empty"]).expect_code(0);
    whole(&fs::read_to_string(mini.path("empty/report.html")).unwrap());
}

#[test]
fn a_page_is_titled_by_the_recipe_wherever_the_experiment_lies_and_does_without_shards_and_scores_it_does_not_know() {
    let mini = Mini::new();
    let elsewhere = mini.path("elsewhere");
    mini.run(&["--exp", "elsewhere", "--quiet"]).expect_code(0);
    let page = || {
        flowmill(mini.folder(), &["report", "elsewhere"]).expect_code(0);
        fs::read_to_string(elsewhere.join("report.html")).unwrap()
    };
    assert!(page().contains("<h1>mini</h1>"));
    fs::remove_dir_all(elsewhere.join("3-pack")).unwrap();
    fs::write(elsewhere.join("speed.jsonl"), "{\"step\": 3}\nno line").unwrap();
    let bare = page();
    let elements = whole(&bare);
    // The samples are there, the recordings are not.
    assert_eq!((count(&elements, "audio"), count(&elements, "svg"), count(&elements, "blockquote")), (2, 3, 0));
}

#[test]
fn dates_in_the_logs_cause_no_retraining_and_change_no_weights() {
    let mini = Mini::new();
    mini.run(&["--quiet"]).expect_code(0);
    let before = mini.tree();
    mini.run(&["--set", "train.wall_clock=true"]).expect_code(0).expect_nothing_to_do();
    mini.tree().expect_same_bytes(&before, "a setting of logs");
    mini.forget_training();
    mini.run(&["--set", "train.wall_clock=true", "--quiet"]).expect_code(0);
    let (before, after) = (before.contents(), mini.tree());
    let after = after.contents();
    let differ = before
        .iter()
        .filter(|(path, hash)| after.get(*path) != Some(*hash))
        .map(|(path, _)| path.display().to_string());
    let events = "4-train/tensorboard/events.out.tfevents.0000000000.flowmill";
    assert_eq!(differ.collect::<Vec<_>>(), ["4-train/receipts/train.json", events]);
}
