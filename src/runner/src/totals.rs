//! Row counts through the phases of a stage.

use serde_json::{Map, Value};

use crate::StageError;
use crate::receipt::PartDone;

/// The total rows and facts of a stage.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Totals {
    /// True if any phase carried rows.
    pub carries_rows: bool,
    pub rows_in: u64,
    pub rows_out: u64,
    pub rejected: u64,
    pub facts: Map<String, Value>,
}

impl Totals {
    /// Adds a finished phase. Its rows in must equal the rows out of the phase before it.
    pub fn add_phase(&mut self, parts: &[PartDone]) -> Result<(), StageError> {
        let carrying = || parts.iter().filter(|part| part.carries_rows);
        let rows_in: u64 = carrying().map(|part| part.rows_in).sum();
        let rows_out: u64 = carrying().map(|part| part.rows_out).sum();
        for part in parts {
            add_facts(&mut self.facts, &part.facts);
        }
        if carrying().next().is_none() {
            return Ok(());
        }
        if self.carries_rows && rows_in != self.rows_out {
            return Err(StageError::RowsLostBetween { gave: self.rows_out, took: rows_in });
        }
        if !self.carries_rows {
            self.rows_in = rows_in;
        }
        self.carries_rows = true;
        self.rows_out = rows_out;
        self.rejected += rows_in - rows_out;
        Ok(())
    }

    /// Formats the rows: `60 rows in, 58 out, 2 rejected`.
    pub fn rows(&self) -> Option<String> {
        let Self { rows_in, rows_out, rejected, .. } = self;
        self.carries_rows.then(|| format!("{rows_in} rows in, {rows_out} out, {rejected} rejected"))
    }

    /// Formats the facts: `hours 0.12, perplexity 48.1`.
    pub fn facts(&self) -> Option<String> {
        let shown: Vec<String> = self.facts.iter().map(|(name, value)| format!("{name} {}", show(value))).collect();
        (!shown.is_empty()).then(|| shown.join(", "))
    }
}

/// Adds facts: numbers are summed, everything else is replaced.
fn add_facts(sum: &mut Map<String, Value>, facts: &Map<String, Value>) {
    for (name, value) in facts {
        let total = match sum.get(name) {
            Some(before) => add(before, value),
            None => value.clone(),
        };
        sum.insert(name.clone(), total);
    }
}

fn add(before: &Value, value: &Value) -> Value {
    if let (Some(before), Some(value)) = (before.as_u64(), value.as_u64()) {
        return before.saturating_add(value).into();
    }
    match (before.as_f64(), value.as_f64()) {
        (Some(before), Some(value)) => (before + value).into(),
        _ => value.clone(),
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            let value = number.as_f64().unwrap_or_default();
            let digits = if value.abs() >= 100.0 { 1 } else { 4 };
            let text = format!("{value:.digits$}");
            if value != 0.0 && value.abs() < 1e-3 { format!("{value:.3e}") } else { trim_zeros(&text) }
        }
        other => other.to_string(),
    }
}

fn trim_zeros(text: &str) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn part(rows_in: u64, rows_out: u64, facts: Value) -> PartDone {
        PartDone {
            key: "k".to_owned(),
            carries_rows: true,
            rows_in,
            rows_out,
            facts: facts.as_object().cloned().unwrap_or_default(),
            rejected: Vec::new(),
            outputs: Vec::new(),
        }
    }

    #[test]
    fn rows_and_facts_add_up_over_parts_and_chain_over_phases() {
        let mut totals = Totals::default();
        totals.add_phase(&[part(10, 9, json!({"hours": 0.5})), part(5, 5, json!({"hours": 0.25}))]).unwrap();
        totals.add_phase(&[part(14, 12, json!({"kind": "x"}))]).unwrap();
        assert_eq!(totals.rows().unwrap(), "15 rows in, 12 out, 3 rejected");
        assert_eq!(totals.facts().unwrap(), "hours 0.75, kind x");
    }

    #[test]
    fn a_phase_that_loses_rows_between_is_an_error() {
        let mut totals = Totals::default();
        totals.add_phase(&[part(10, 10, json!({}))]).unwrap();
        let error = totals.add_phase(&[part(9, 9, json!({}))]).unwrap_err();
        assert!(matches!(error, StageError::RowsLostBetween { gave: 10, took: 9 }), "{error}");
    }
}
