//! Warnings about settings without effect: printed before anything runs, and once.

use crate::support::Mini;

/// Settings on the mini recipe of 12 steps, and the key that is warned of.
const DOUBTFUL: [(&[&str], &str); 15] = [
    (&["train.schedule={name: warmup_lr, warmup_steps: 2500}"], "train.schedule.warmup_steps"),
    (&["train.schedule={name: warmup_cosine, warmup_steps: 12}"], "train.schedule.warmup_steps"),
    (&["train.schedule={name: noam_hold_annealing, warmup_steps: 2, hold_steps: 100}"], "train.schedule.hold_steps"),
    (&["train.save_every=1000"], "train.save_every"),
    (&["train.save_every={epochs: 5}", "train.max_epochs=3", "train.max_steps=null"], "train.save_every"),
    (&["train.validate_every=13"], "train.validate_every"),
    (&["train.early_stopping={patience: 5}"], "train.early_stopping"),
    (&["train.sample_every=13"], "train.sample_every"),
    (&["train.sample_every=4", "train.validation_split=null"], "train.sample_every"),
    (&["train.log_gradients=20"], "train.log_gradients"),
    (&["train.keep.every=5"], "train.keep.every"),
    (&["train.keep.best=0", "average={which: last, count: 1}"], "train.keep.best"),
    (&["train.ema_decay=0.999"], "train.ema_decay"),
    (
        &["train.curriculum=[{epochs: 9, order: sorted}, {order: shuffled}]", "train.max_epochs=3"],
        "train.curriculum[1]",
    ),
    (&["average.count=3"], "average.count"),
];

fn set(settings: &[&str]) -> Vec<String> {
    settings.iter().flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()]).collect()
}

fn warnings(mini: &Mini, settings: &[&str]) -> Vec<String> {
    let mut arguments = vec!["recipe".to_owned(), "check".to_owned(), ".".to_owned()];
    arguments.extend(set(settings));
    let checked = crate::support::flowmill(mini.folder(), &arguments).expect_code(0);
    checked.stdout.lines().filter_map(|line| line.strip_prefix("WARNING: ")).map(str::to_owned).collect()
}

#[test]
fn settings_that_will_not_do_what_they_seem_to_are_named_by_recipe_check() {
    let mini = Mini::new();
    assert_eq!(warnings(&mini, &[]), [""; 0], "of a sensible recipe there is nothing to say");
    for (settings, key) in DOUBTFUL {
        let found = warnings(&mini, settings);
        // That without a validation split the training split is scored is told apart.
        let rest: Vec<&String> = found.iter().filter(|warning| !warning.starts_with("export.split")).collect();
        assert!(rest.len() == 1 && rest[0].starts_with(key), "{settings:?}: {found:?}");
    }
    let unscored = warnings(&mini, &["train.validation_split=null"]);
    assert!(unscored.len() == 1 && unscored[0].starts_with("export.split"), "{unscored:?}");
    let many = warnings(&mini, &["train.max_steps=3", "train.sample_every=9", "train.early_stopping={patience: 2}"]);
    assert_eq!(many.len(), 4, "saved, validated, stopped and sampled: {many:?}");
}

#[test]
fn a_run_says_them_once_before_the_first_stage_and_not_again_when_it_is_done() {
    let mini = Mini::new();
    let settings = set(&["train.save_every=1000", "train.ema_decay=0.999"]);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let ran = mini.run(&settings).expect_code(0);
    for key in ["WARNING: train.save_every", "WARNING: train.ema_decay"] {
        assert_eq!(ran.text().matches(key).count(), 1, "{}", ran.text());
    }
    assert!(!mini.run(&settings).expect_code(0).text().contains("WARNING"));
}

#[test]
fn what_only_the_data_tell_is_said_when_training_starts() {
    let mini = Mini::packed();
    // How many steps three passes have is known with the lengths of the utterances.
    let settings = set(&["train.max_steps=null", "train.max_epochs=3", "train.save_every=1000"]);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    assert!(warnings(&mini, &["train.max_steps=null", "train.max_epochs=3", "train.save_every=1000"]).is_empty());
    let ran = mini.run(&[&["--stop-stage", "train"], &settings[..]].concat()).expect_code(0);
    assert_eq!(ran.text().matches("WARNING: train.save_every").count(), 1, "{}", ran.text());
}

#[test]
fn what_cannot_work_after_the_training_is_refused_before_anything_runs() {
    let mini = Mini::new();
    let cases: [(&[&str], &[&str]); 9] = [
        (&["export.split=test"], &["export.split", "`test` is none of the splits", "dev, train"]),
        (&["train.train_split=trian"], &["train.train_split", "dev, train"]),
        (&["train.validation_split=valid"], &["train.validation_split", "dev, train"]),
        (&["embed.fit_on=all"], &["embed.fit_on", "dev, train"]),
        (&["tokens.fit_on=all"], &["tokens.fit_on", "dev, train"]),
        (&["export.sfm_strength=2"], &["export.sfm_strength", "sfm-flow"]),
        (&["pack.mel.store=none"], &["train.normalise_mel", "pack.mel.store"]),
        (
            &["train.validation_split=null", "train.early_stopping={patience: 2}"],
            &["train.early_stopping", "train.validation_split is null"],
        ),
        (&["prep.split={by: fraction, fractions: {test: 0.2}}"], &["train.validation_split", "test, train"]),
    ];
    for (settings, words) in cases {
        let settings = set(settings);
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        mini.run(&settings).expect_code(2).expect_words(words);
        assert!(!mini.exp("").exists(), "{settings:?}: nothing has run");
    }
}
