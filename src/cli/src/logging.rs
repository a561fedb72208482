//! The log for whoever debugs a run: off unless `-v` or `RUST_LOG` asks for it, on the standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::uptime;

/// The variable that says what is logged, as `info` or `flowmill_runner=debug,flowmill_train=trace`. It overrides `-v`.
const VARIABLE: &str = "RUST_LOG";

/// Begins to log: `verbosity` is the number of `-v`.
pub fn begin(verbosity: u8) {
    let Some(filter) = filter(verbosity, std::env::var(VARIABLE).ok().as_deref()) else { return };
    // Seconds since the start tell more about a run than dates do; the journal has those.
    tracing_subscriber::fmt().with_env_filter(filter).with_timer(uptime()).with_writer(std::io::stderr).init();
    let (version, system, architecture) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    tracing::info!(version, system, architecture, command = crate::experiment::command_line(), "flowmill begins");
}

/// Returns the filter of the log; `None` logs nothing.
fn filter(verbosity: u8, variable: Option<&str>) -> Option<EnvFilter> {
    let directives = match (variable.filter(|text| !text.trim().is_empty()), verbosity) {
        (Some(text), _) => text,
        (None, 0) => return None,
        (None, 1) => "flowmill=info",
        (None, 2) => "flowmill=debug",
        (None, _) => "flowmill=trace",
    };
    // A directive that does not parse is reported and left out, as other programs do.
    Some(EnvFilter::builder().parse_lossy(directives))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_overrides_the_flag_and_without_both_nothing_is_logged() {
        let shown = |verbosity, variable| filter(verbosity, variable).map(|filter| filter.to_string());
        assert_eq!(shown(0, None), None);
        assert_eq!(shown(0, Some(" ")), None);
        assert_eq!(shown(1, None).as_deref(), Some("flowmill=info"));
        assert_eq!(shown(2, None).as_deref(), Some("flowmill=debug"));
        assert_eq!(shown(9, None).as_deref(), Some("flowmill=trace"));
        assert_eq!(shown(2, Some("flowmill_train=warn")).as_deref(), Some("flowmill_train=warn"));
    }
}
