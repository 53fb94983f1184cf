//! A commit in words, and as JSON.

use serde_json::json;
use store::{Checksum, Commit, ObjectType, Repo, Value, text};

/// A commit as `log` and `show` print it.
pub fn print_commit(checksum: &Checksum, commit: &Commit) {
    println!("commit {checksum}");
    print_commit_body(commit);
}

/// The same without its first line.
pub fn print_commit_body(commit: &Commit) {
    if let Some(parent) = commit.parent {
        println!("Parent:  {parent}");
    }
    let content = [commit.root_tree.0, commit.root_meta.0].concat();
    println!("ContentChecksum:  {}", Checksum::of(&content));
    println!("Date:  {}", date(commit.timestamp));
    if let Some(version) = commit.version() {
        println!("Version: {version}");
    }
    if commit.subject.is_empty() {
        println!("(no subject)");
    } else {
        println!();
        print_indented(&commit.subject);
    }
    if !commit.body.is_empty() {
        println!();
        print_indented(&commit.body);
    }
    println!();
}

fn print_indented(text: &str) {
    for line in text.lines() {
        println!("    {line}");
    }
}

/// A metadata object in GVariant's text format.
pub fn raw_object(kind: ObjectType, bytes: &[u8], order: text::Order) -> anyhow::Result<String> {
    let ty = match kind {
        ObjectType::Commit => "(a{sv}aya(say)sstayay)",
        ObjectType::DirTree => "(a(say)a(sayay))",
        ObjectType::DirMeta => "(uuua(ayay))",
        ObjectType::File => anyhow::bail!("a file is no metadata object"),
    };
    Ok(text::print(ty, bytes, order, true)?)
}

/// `2023-11-14 22:13:20 +0000`, from the days since 1970 (proleptic Gregorian calendar).
pub fn date(timestamp: u64) -> String {
    let (days, seconds) = (timestamp / 86400, timestamp % 86400);
    // Years that begin in March: the leap day is the last of its year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day = shifted % 146_097;
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, late) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + late;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000")
}

pub fn value_json(key: &str, value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(truth) => json!(truth),
        Value::Byte(number) => json!(number),
        Value::U32(number) => json!(number),
        Value::I32(number) => json!(number),
        Value::U64(number) => json!(number),
        Value::I64(number) => json!(number),
        Value::String(text) => json!(text),
        Value::Bytes(bytes) => json!(hex::encode(bytes)),
        Value::StringArray(strings) => json!(strings),
        // One entry for each object: the number is what a person wants.
        Value::BytesArray(arrays) if key == store::commit::SIZES => json!(arrays.len()),
        Value::BytesArray(arrays) => json!(arrays.iter().map(hex::encode).collect::<Vec<_>>()),
        Value::Dict(dict) => {
            json!(dict.iter().map(|(k, v)| (k.clone(), value_json(k, v))).collect::<serde_json::Map<_, _>>())
        }
        Value::Other(ty, bytes) => json!({ "type": ty, "bytes": hex::encode(bytes) }),
    }
}

pub fn commit_json(repo: &Repo, checksum: &Checksum, commit: &Commit) -> anyhow::Result<serde_json::Value> {
    let metadata: serde_json::Map<_, _> =
        commit.metadata.iter().map(|(key, value)| (key.clone(), value_json(key, value))).collect();
    Ok(json!({
        "commit": checksum,
        "parent": commit.parent,
        "timestamp": commit.timestamp,
        "version": commit.version(),
        "subject": commit.subject,
        "body": commit.body,
        "root_tree": commit.root_tree,
        "root_meta": commit.root_meta,
        "metadata": metadata,
        "signatures": signatures(repo, checksum)?,
        "partial": repo.is_partial(checksum),
    }))
}

pub fn signatures(repo: &Repo, checksum: &Checksum) -> anyhow::Result<usize> {
    let detached = repo.load_detached(checksum)?.unwrap_or_default();
    Ok(detached.get(store::sign::KEY).and_then(|v| v.as_bytes_array()).map_or(0, <[_]>::len))
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00 +0000");
        assert_eq!(date(1_700_000_000), "2023-11-14 22:13:20 +0000");
        assert_eq!(date(1_709_164_800), "2024-02-29 00:00:00 +0000");
        assert_eq!(date(1_735_689_599), "2024-12-31 23:59:59 +0000");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00:00 +0000");
    }
}
