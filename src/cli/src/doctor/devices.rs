//! The devices that training can run on, as lines of the report.

use flowmill_nn::devices::{self, Backend, Found};

use super::machine;
use crate::human;

/// A line about a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The text.
    pub text: String,
    /// True if an existing device cannot be used.
    pub warns: bool,
}

/// Returns a line for every device that this build can use, and for every kind of device that it cannot.
pub fn describe() -> Vec<Line> {
    let gpus = machine::graphics();
    devices::list().iter().flat_map(|backend| of_backend(backend, &gpus)).collect()
}

/// Returns the lines of one kind. `gpus` are the NVIDIA devices that the system lists, whether or not they can be
/// used.
fn of_backend(backend: &Backend, gpus: &[String]) -> Vec<Line> {
    let reason = match &backend.devices {
        Ok(found) => {
            let line = |device| Line { text: of_device(device, backend.driver.as_deref()), warns: false };
            return found.iter().map(line).collect();
        }
        Err(reason) => reason,
    };
    let idle = if backend.kind == "cuda" { gpus } else { &[] };
    let there = if idle.is_empty() { String::new() } else { format!(" This machine has {}.", idle.join(", ")) };
    vec![Line { text: format!("no {}: {reason}.{there}", backend.kind), warns: !idle.is_empty() }]
}

/// One device.
fn of_device(device: &Found, driver: Option<&str>) -> String {
    let memory =
        device.memory.map(|memory| format!("{} free of {}", human::bytes(memory.free), human::bytes(memory.total)));
    let capability = device.capability.map(|(major, minor)| format!("compute capability {major}.{minor}"));
    let driver = driver.map(|version| format!("driver {version}"));
    let facts: Vec<String> = [Some(device.model.clone()), memory, capability, driver].into_iter().flatten().collect();
    format!("{}: {}", device.name, facts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowmill_nn::devices::{Memory, Unusable};

    #[test]
    fn devices_show_their_facts() {
        let memory = Memory { free: 8_000_000_000, total: 16_000_000_000 };
        let found =
            Found { name: "cuda:1".into(), model: "A GPU".into(), memory: Some(memory), capability: Some((9, 0)) };
        let backend = Backend { kind: "cuda", driver: Some("580.1".into()), devices: Ok(vec![found]) };
        let lines = of_backend(&backend, &["A GPU".into()]);
        let memory = format!("{} free of {}", human::bytes(8_000_000_000), human::bytes(16_000_000_000));
        let text = format!("cuda:1: A GPU, {memory}, compute capability 9.0, driver 580.1");
        assert_eq!(lines, [Line { text, warns: false }]);
    }

    #[test]
    fn only_a_gpu_that_is_there_and_idle_is_worth_a_warning() {
        let of = |kind, gpus: &[String]| {
            let backend = Backend { kind, driver: None, devices: Err(Unusable::NotBuilt(kind)) };
            of_backend(&backend, gpus)[0].warns
        };
        assert!(of("cuda", &["A GPU".into()]));
        assert!(!of("cuda", &[]));
        assert!(!of("metal", &["A GPU".into()]));
    }
}
