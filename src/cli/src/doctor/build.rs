//! Build information of this binary.

/// Returns `name, value` pairs: target, profile, instruction sets, devices.
pub fn describe() -> Vec<(String, String)> {
    let target = format!("{} {}", std::env::consts::ARCH, std::env::consts::OS);
    let profile = if cfg!(debug_assertions) { "development (slow; build with --release)" } else { "release" };
    vec![
        ("target".into(), target),
        ("profile".into(), profile.into()),
        ("instructions".into(), compiled_instructions()),
        ("devices".into(), devices()),
    ]
}

/// Returns the kinds of devices whose support was compiled in.
fn devices() -> String {
    [&["cpu"], flowmill_nn::device::SUPPORTED].concat().join(" ")
}

/// Returns the instruction sets that the compiler was allowed to use everywhere.
fn compiled_instructions() -> String {
    let sets = [
        ("avx2", cfg!(target_feature = "avx2")),
        ("fma", cfg!(target_feature = "fma")),
        ("avx512f", cfg!(target_feature = "avx512f")),
        ("neon", cfg!(target_feature = "neon")),
    ];
    let used: Vec<&str> = sets.iter().filter(|set| set.1).map(|set| set.0).collect();
    if used.is_empty() { "the baseline of the target; more is chosen at run time".into() } else { used.join(" ") }
}
