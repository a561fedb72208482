//! Reading Parquet tables that the program wrote.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Reads all rows of a table.
pub fn read(path: &Path) -> Vec<RecordBatch> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader.map(Result::unwrap).collect()
}

/// Returns one column of a batch in another type.
fn column(batch: &RecordBatch, name: &str, as_type: &DataType) -> arrow::array::ArrayRef {
    let column = batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name} in {}", batch.schema()));
    cast(column, as_type).unwrap()
}

/// A column of texts; missing ones are empty.
pub fn texts(path: &Path, name: &str) -> Vec<String> {
    let of_batch = |batch: RecordBatch| {
        let column = column(&batch, name, &DataType::Utf8);
        column.as_string::<i32>().iter().map(|text| text.unwrap_or("").to_string()).collect::<Vec<_>>()
    };
    read(path).into_iter().flat_map(of_batch).collect()
}

/// A column of numbers; missing ones are NaN.
pub fn numbers(path: &Path, name: &str) -> Vec<f64> {
    let of_batch = |batch: RecordBatch| {
        let column = column(&batch, name, &DataType::Float64);
        column.as_primitive::<Float64Type>().iter().map(|number| number.unwrap_or(f64::NAN)).collect::<Vec<_>>()
    };
    read(path).into_iter().flat_map(of_batch).collect()
}

/// A column of bytes.
pub fn binaries(path: &Path, name: &str) -> Vec<Vec<u8>> {
    let of_batch = |batch: RecordBatch| {
        let column = column(&batch, name, &DataType::Binary);
        column.as_binary::<i32>().iter().map(|bytes| bytes.unwrap_or_default().to_vec()).collect::<Vec<_>>()
    };
    read(path).into_iter().flat_map(of_batch).collect()
}

/// A column of lists of numbers.
pub fn lists(path: &Path, name: &str) -> Vec<Vec<f64>> {
    let as_type = DataType::List(Arc::new(Field::new("item", DataType::Float64, true)));
    let of_batch = |batch: RecordBatch| {
        let column = column(&batch, name, &as_type);
        let lists = column.as_list::<i32>().iter().map(|list| list.expect("a list"));
        lists.map(|list| list.as_primitive::<Float64Type>().values().to_vec()).collect::<Vec<_>>()
    };
    read(path).into_iter().flat_map(of_batch).collect()
}

/// A column of lists of texts; missing ones are empty.
pub fn text_lists(path: &Path, name: &str) -> Vec<Vec<String>> {
    let as_type = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    let of_batch = |batch: RecordBatch| {
        let column = column(&batch, name, &as_type);
        let texts = |list: arrow::array::ArrayRef| {
            list.as_string::<i32>().iter().map(|text| text.unwrap_or("").to_owned()).collect::<Vec<_>>()
        };
        column.as_list::<i32>().iter().map(|list| list.map(texts).unwrap_or_default()).collect::<Vec<_>>()
    };
    read(path).into_iter().flat_map(of_batch).collect()
}

/// A column of lists of bytes.
pub fn binary_lists(path: &Path, name: &str) -> Vec<Vec<Vec<u8>>> {
    let as_type = DataType::List(Arc::new(Field::new("item", DataType::Binary, true)));
    let of_batch = |batch: RecordBatch| {
        let column = column(&batch, name, &as_type);
        let bytes = |list: arrow::array::ArrayRef| {
            list.as_binary::<i32>().iter().map(|bytes| bytes.unwrap_or_default().to_vec()).collect::<Vec<_>>()
        };
        column.as_list::<i32>().iter().map(|list| bytes(list.expect("a list"))).collect::<Vec<_>>()
    };
    read(path).into_iter().flat_map(of_batch).collect()
}

/// A row of a shard as CosyVoice packs it.
#[derive(Clone)]
pub struct CosyVoiceRow {
    pub utt: String,
    pub audio_data: Vec<u8>,
    pub wav: String,
    pub text: String,
    pub spk: String,
    pub utt_embedding: Option<Vec<f64>>,
    pub spk_embedding: Option<Vec<f64>>,
    pub speech_token: Option<Vec<i64>>,
    pub instruct: Option<String>,
}

/// The rows of a shard of stage 3 as CosyVoice would have packed them.
pub fn cosyvoice_rows(shard: &Path) -> Vec<CosyVoiceRow> {
    let [utt, wav, text, spk] = ["utt", "wav", "text", "spk"].map(|name| texts(shard, name));
    let [own, speaker, tokens] = ["utt_embedding", "spk_embedding", "speech_token"].map(|name| lists(shard, name));
    let audio = binaries(shard, "audio_data");
    (0..utt.len())
        .map(|at| CosyVoiceRow {
            utt: utt[at].clone(),
            audio_data: audio[at].clone(),
            wav: wav[at].clone(),
            text: text[at].clone(),
            spk: spk[at].clone(),
            utt_embedding: Some(own[at].clone()),
            spk_embedding: Some(speaker[at].clone()),
            speech_token: Some(tokens[at].iter().map(|token| *token as i64).collect()),
            instruct: None,
        })
        .collect()
}

/// Writes a shard with the columns and types that `DataFrame.to_parquet` gives CosyVoice's rows: lists of doubles and of 64-bit integers.
pub fn write_cosyvoice(path: &Path, rows: &[CosyVoiceRow]) {
    use arrow::array::{ArrayRef, BinaryArray, ListArray, StringArray};
    use arrow::datatypes::Int64Type;
    let texts =
        |of: fn(&CosyVoiceRow) -> &String| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(of))) };
    let doubles = |of: fn(&CosyVoiceRow) -> &Option<Vec<f64>>| -> ArrayRef {
        let rows = rows
            .iter()
            .map(|row| of(row).as_ref().map(|values| values.iter().map(|value| Some(*value)).collect::<Vec<_>>()));
        Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(rows))
    };
    let tokens =
        rows.iter().map(|row| row.speech_token.as_ref().map(|ids| ids.iter().map(|id| Some(*id)).collect::<Vec<_>>()));
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("utt", texts(|row| &row.utt)),
        ("audio_data", Arc::new(BinaryArray::from_iter_values(rows.iter().map(|row| &row.audio_data)))),
        ("wav", texts(|row| &row.wav)),
        ("text", texts(|row| &row.text)),
        ("spk", texts(|row| &row.spk)),
        ("utt_embedding", doubles(|row| &row.utt_embedding)),
        ("spk_embedding", doubles(|row| &row.spk_embedding)),
        ("speech_token", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(tokens))),
    ];
    if rows.iter().any(|row| row.instruct.is_some()) {
        columns.push(("instruct", Arc::new(StringArray::from_iter(rows.iter().map(|row| row.instruct.clone())))));
    }
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}
