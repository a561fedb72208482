//! Settings in a golden file. Each is marked when it is read, so that unread ones are detected.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Result, bad_config};

/// The settings of one optimizer or schedule.
pub(super) struct Settings<'a> {
    path: String,
    values: &'a Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Settings<'a> {
    /// The settings at `section.name` of a configuration.
    pub(super) fn new(section: &str, name: &str, value: &'a Value) -> Result<Self> {
        let path = format!("{section}.{name}");
        let values = value.as_object().ok_or_else(|| bad_config(&path, "is not an object of settings"))?;
        Ok(Self { path, values, read: RefCell::default() })
    }

    /// Returns a setting; `None` if it is absent or null.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.values.get(key).filter(|value| !value.is_null())
    }

    fn typed<T>(&self, key: &str, default: Option<T>, read: impl Fn(&Value) -> Option<T>, what: &str) -> Result<T> {
        let at = format!("{}.{key}", self.path);
        match (self.value(key), default) {
            (Some(value), _) => read(value).ok_or_else(|| bad_config(at, format!("is {value}, not {what}"))),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(bad_config(at, "is missing")),
        }
    }

    pub(super) fn number(&self, key: &str, default: Option<f64>) -> Result<f64> {
        self.typed(key, default, Value::as_f64, "a number")
    }

    pub(super) fn count(&self, key: &str, default: Option<u64>) -> Result<u64> {
        self.typed(key, default, Value::as_u64, "a count")
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        self.typed(key, Some(default), Value::as_bool, "true or false")
    }

    pub(super) fn text(&self, key: &str, default: Option<&str>) -> Result<String> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        self.typed(key, default.map(str::to_owned), text, "a text")
    }

    pub(super) fn numbers<const N: usize>(&self, key: &str, default: [f64; N]) -> Result<[f64; N]> {
        let numbers = |value: &Value| {
            let numbers: Option<Vec<f64>> = value.as_array()?.iter().map(Value::as_f64).collect();
            numbers?.try_into().ok()
        };
        self.typed(key, Some(default), numbers, "a list of numbers")
    }

    /// Fails for a setting that was not read and is on.
    pub(super) fn finish(&self) -> Result<()> {
        let read = self.read.borrow();
        let unread = |(key, value): &(&String, &Value)| {
            !read.contains(key.as_str()) && !value.is_null() && **value != Value::Bool(false)
        };
        match self.values.iter().find(unread) {
            None => Ok(()),
            Some((key, _)) => Err(bad_config(format!("{}.{key}", self.path), "is a setting that is not known here")),
        }
    }

    pub(super) fn refuse<T>(&self, key: &str, problem: impl Into<String>) -> Result<T> {
        Err(bad_config(format!("{}.{key}", self.path), problem))
    }
}
