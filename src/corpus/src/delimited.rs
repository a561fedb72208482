//! Tables of text (CSV, TSV) where another format is expected: how to recognize them and what to do about them.

use crate::fields::is_name_of;

/// The characters that separate fields in tables, with their names.
const SEPARATORS: [(char, &str); 4] = [('\t', "tabs"), (',', "commas"), (';', "semicolons"), ('|', "`|`")];

/// A table, recognized by its first line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    separator: char,
    /// The name of the separator.
    parted_by: &'static str,
    /// True if the first line names the fields, including a recording.
    has_header: bool,
}

impl Table {
    /// Returns the table that begins with this line; `None` if it has fewer than two fields.
    pub(crate) fn of(line: &str) -> Option<Self> {
        let has_header = |separator: char| line.split(separator).any(|name| is_name_of("audio", &plain(name)));
        let parts = |separator: char| line.split(separator).count() > 1;
        let tables = SEPARATORS.iter().filter(|(separator, _)| parts(*separator));
        let table = |(separator, parted_by): &(char, &'static str)| Self {
            separator: *separator,
            parted_by,
            has_header: has_header(*separator),
        };
        let mut tables: Vec<Self> = tables.map(table).collect();
        tables.sort_by_key(|table| !table.has_header);
        tables.into_iter().next()
    }

    /// Returns whether the first line names the fields, including a recording.
    pub(crate) fn has_header(&self) -> bool {
        self.has_header
    }

    /// Returns the character that separates the fields.
    pub(crate) fn separator(&self) -> char {
        self.separator
    }

    /// Returns whether it is a table with a header that does not have the layout of LJSpeech.
    pub(crate) fn is_csv(&self) -> bool {
        self.has_header && self.separator != '|'
    }

    /// Describes the table, and how to make the file called `name` readable.
    pub(crate) fn advice(&self, name: &str) -> String {
        let (by, escaped) =
            (self.parted_by, if self.separator == '\t' { "\\t".to_owned() } else { self.separator.to_string() });
        let convert = format!(
            "python3 -c \"import csv, json; [print(json.dumps(row)) for row in csv.DictReader(open('{name}', encoding='utf-8-sig'), \
             delimiter='{escaped}')]\" > {}.jsonl",
            name.rsplit_once('.').map_or(name, |(stem, _)| stem)
        );
        match (self.has_header, self.separator) {
            (true, _) => format!("its fields are separated by {by}; write it as JSON lines and read them with `format: manifest`: {convert}"),
            (false, '|') => "its fields are separated by `|`; name it metadata.csv and read its folder with `format: ljspeech`, or write \
                             one JSON object per line"
                .to_owned(),
            (false, _) => format!("its fields are separated by {by}, and its first line does not name them; write one JSON object per line"),
        }
    }
}

/// Returns a field's name without quotes, in the form of the lists of names.
fn plain(name: &str) -> String {
    name.trim().trim_matches(['"', '\u{feff}']).trim().to_lowercase().replace([' ', '-'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_known_by_their_first_line() {
        let common_voice = Table::of("client_id\tpath\tsentence, as spoken\tup_votes").unwrap();
        assert!(common_voice.is_csv() && common_voice.advice("train.tsv").contains(r"delimiter='\t'"));
        let hugging_face = Table::of("\u{feff}\"file_name\",\"transcription\"").unwrap();
        assert!(hugging_face.is_csv() && hugging_face.advice("metadata.csv").ends_with("> metadata.jsonl"));
        let list = Table::of("a.wav|anna|EN|words, and more").unwrap();
        assert!(!list.is_csv());
        assert_eq!(Table::of("one line of words"), None);
    }
}
