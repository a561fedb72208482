//! `flowmill imagine --model DIR --user USER.json --out DIR`: makes images to the taste of users, from the captions of images that they liked.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, anyhow};
use flowmill_family::{Input, Output, Request, Synthesis};
use flowmill_image::to_jpeg;
use flowmill_stage_export::write_whole;
use serde_json::{Value, json};

use super::synth::open;
use crate::args::ImagineArgs;
use crate::failure::Failure;

/// Quality of the JPEG files.
const QUALITY: u8 = 95;
/// The largest file of users, in bytes.
const LARGEST: u64 = 256 << 20;

/// Makes images for every user of a file: `sample_0000/gen_0.jpg` and `sample_0000/info.json`, numbered by user and image.
pub fn run(arguments: &ImagineArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let users = read_users(&arguments.user).map_err(Failure::Failed)?;
    let synth = open(&arguments.model, &given(arguments), arguments.seed, arguments.device, None)?;
    for (number, user) in users.iter().enumerate() {
        let name = format!("sample_{number:04}");
        let request = Request { inputs: vec![Input::Text(user.to_string())], name: name.clone() };
        let about = || format!("{}, user {number}", arguments.user.display());
        let made = synth.make(&request, &mut |_, _| {});
        let Synthesis { made, figures } = made.with_context(about).map_err(Failure::Failed)?;
        let Output::Images(images) = &made.output else {
            return Err(Failure::Failed(anyhow!("the model made no images")));
        };
        let folder = arguments.out.join(&name);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create the folder {}", folder.display()))
            .map_err(Failure::Failed)?;
        for (at, image) in images.iter().enumerate() {
            let bytes = image.raster().and_then(|raster| to_jpeg(&raster, QUALITY));
            let bytes = bytes.map_err(|error| Failure::Failed(error.into()))?;
            let path = folder.join(format!("gen_{at}.jpg"));
            write_whole(&path, &bytes).map_err(|error| Failure::Failed(error.into()))?;
        }
        let info = format!("{:#}\n", info(user, number, images.len()));
        write_whole(&folder.join("info.json"), info.as_bytes()).map_err(|error| Failure::Failed(error.into()))?;
        writeln!(out, "{} → {}  {}", arguments.user.display(), folder.display(), figures.join(", "))?;
    }
    Ok(())
}

/// Reads a user, or a list of users.
fn read_users(path: &Path) -> anyhow::Result<Vec<Value>> {
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if size > LARGEST {
        return Err(anyhow!("{}: {size} bytes; at most {LARGEST} are read", path.display()));
    }
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let users = match serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))? {
        Value::Array(users) => users,
        user => vec![user],
    };
    match users.is_empty() {
        true => Err(anyhow!("{} has no user", path.display())),
        false => Ok(users),
    }
}

/// Returns the description of a user's images, under the names of the public code.
fn info(user: &Value, number: usize, images: usize) -> Value {
    let target = &user["target_item_info"];
    let first = |values: [&Value; 2]| values.into_iter().find(|value| !value.is_null()).cloned().unwrap_or_default();
    json!({
        "sample_idx": number,
        "user_id": first([&user["user_id"], &user["worker_id"]]),
        "target_item_id": first([&user["target_item_id"], &target["item_id"]]),
        "target_caption": target["caption"],
        "num_generated": images,
    })
}

/// Returns the options of the model's family, each with its value if it was given.
fn given(arguments: &ImagineArgs) -> [(&'static str, Option<Value>); 7] {
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| json!(path));
    [
        ("steps", arguments.steps.map(|steps| json!(steps))),
        ("guidance", arguments.guidance.map(|strength| json!(strength))),
        ("sampler", arguments.sampler.as_ref().map(|name| json!(name))),
        ("negative", arguments.negative.as_ref().map(|text| json!(text))),
        ("images", arguments.images.map(|count| json!(count))),
        ("llama", path(&arguments.llama)),
        ("stable_diffusion", path(&arguments.stable_diffusion)),
    ]
}
