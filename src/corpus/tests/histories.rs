//! Files of users with histories: every entry becomes a user or a rejection with its reason.

use flowmill_corpus::histories::{Histories, HistoryFault, HistoryOptions, read_histories};
use serde_json::{Value, json};
use std::path::Path;

fn item(id: &str) -> Value {
    json!({ "item_id": id, "caption": format!("a picture of {id}"), "image_path": format!("img/{id}.png") })
}

/// A folder with images, next to a file outside of it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("data/img")).unwrap();
    for id in ["cat", "dog", "fox"] {
        std::fs::write(folder.path().join(format!("data/img/{id}.png")), b"x").unwrap();
    }
    std::fs::write(folder.path().join("secret.png"), b"x").unwrap();
    folder
}

fn read(folder: &Path, users: Value, options: HistoryOptions) -> Histories {
    let path = folder.join("data/users.json");
    std::fs::write(&path, users.to_string()).unwrap();
    read_histories(&path, &folder.join("data"), &options).unwrap()
}

#[test]
fn good_entries_are_read_with_all_names_of_their_fields() {
    let folder = folder();
    let users = json!([
        { "user_id": "a", "history_items_info": [item("cat"), item("dog"), item("cat")], "target_item_info": item("fox"),
          "user_style": "animals", "dialogue": " hello " },
        { "worker_id": 17, "history_items_info": [item("dog")], "target_item_info": item("cat"), "worker_style": "" },
    ]);
    let Histories { users, rejected } = read(folder.path(), users, HistoryOptions::default());
    assert!(rejected.is_empty());
    assert_eq!(users.iter().map(|user| user.id.as_str()).collect::<Vec<_>>(), ["a", "17"]);
    assert_eq!(users[0].history.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["cat", "dog", "cat"]);
    assert_eq!((users[0].style.as_deref(), users[0].dialogue.as_deref()), (Some("animals"), Some("hello")));
    assert_eq!((users[1].style.as_deref(), users[1].target.caption.as_str()), (None, "a picture of cat"));
    assert!(users[1].target.image.is_file());
}

#[test]
fn bad_entries_are_rejected_with_their_reasons() {
    let folder = folder();
    let good = json!({ "user_id": "a", "history_items_info": [item("cat")], "target_item_info": item("fox") });
    let with = |key: &str, value: Value| {
        let mut entry = good.clone();
        entry["user_id"] = json!(format!("with {key} {value}"));
        entry[key] = value;
        entry
    };
    let mut captionless = item("dog");
    captionless["caption"] = json!("  ");
    let at = |path: &str| json!({ "item_id": "x", "caption": "x", "image_path": path });
    let users = json!([
        good,
        with("history_items_info", json!([])),
        with("target_item_info", Value::Null),
        with("target_item_info", item("cat")),
        with("history_items_info", json!([item("cat"), captionless])),
        good,
        with("history_items_info", json!([at("../secret.png")])),
        with("target_item_info", at("/etc/hosts")),
        with("history_items_info", json!([item("cat"), item("missing")])),
        with("history_items_info", json!("cat")),
        { "history_items_info": [item("cat")], "target_item_info": item("fox") },
        7,
    ]);
    let Histories { users, rejected } = read(folder.path(), users, HistoryOptions::default());
    assert_eq!(users.len(), 1);
    assert_eq!(rejected.iter().map(|rejected| rejected.entry).collect::<Vec<_>>(), (1..12).collect::<Vec<_>>());
    use HistoryFault::{
        Duplicate, EmptyCaption, EmptyHistory, Field, MissingImage, NoTarget, Outside, TargetInHistory,
    };
    let faults: Vec<&HistoryFault> = rejected.iter().map(|rejected| &rejected.fault).collect();
    assert!(matches!(faults[0], EmptyHistory) && matches!(faults[1], NoTarget));
    assert!(matches!(faults[2], TargetInHistory { item } if item == "cat"));
    assert!(matches!(faults[3], EmptyCaption { place } if place == "history item 2"));
    assert!(matches!(faults[4], Duplicate { first: 0 }));
    assert!(matches!(faults[5], Outside { path, .. } if path == "../secret.png"));
    assert!(matches!(faults[6], Outside { path, .. } if path == "/etc/hosts"));
    assert!(matches!(faults[7], MissingImage { path, .. } if path == "img/missing.png"));
    assert!(matches!(faults[8], Field { field: "history_items_info", .. }));
    assert!(matches!(faults[9], Field { field: "user_id", .. }) && matches!(faults[10], Field { .. }));
    assert_eq!(rejected[9].id, None);
}

#[test]
fn repeats_are_kept_on_demand() {
    let folder = folder();
    let users = json!([{ "user_id": "a", "history_items_info": [item("cat")], "target_item_info": item("cat") }]);
    assert_eq!(
        read(folder.path(), users, HistoryOptions { allow_repeats: true, ..HistoryOptions::default() }).users.len(),
        1
    );
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_refused() {
    let folder = folder();
    std::os::unix::fs::symlink(folder.path().join("secret.png"), folder.path().join("data/img/link.png")).unwrap();
    let users = json!([{ "user_id": "a", "history_items_info": [item("link")], "target_item_info": item("cat") }]);
    let rejected = read(folder.path(), users, HistoryOptions::default()).rejected;
    assert!(matches!(rejected[0].fault, HistoryFault::Outside { .. }));
}

#[test]
fn other_files_are_errors() {
    let folder = folder();
    let path = folder.path().join("users.json");
    for content in ["", "{}", "[1", "\u{0}"] {
        std::fs::write(&path, content).unwrap();
        assert!(read_histories(&path, folder.path(), &HistoryOptions::default()).is_err());
    }
    assert!(read_histories(&folder.path().join("none.json"), folder.path(), &HistoryOptions::default()).is_err());
}
