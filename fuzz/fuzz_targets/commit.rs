// A commit, and the sizes that it records.

use store::commit::{Builder, SIZES, recorded_sizes};
use store::{Checksum, Commit, Value};

pub fn seeds() -> Vec<Vec<u8>> {
    let sum = Checksum::of(b"x");
    let mut builder = Builder::new(sum, sum, 1_700_000_000).bind("os/x").bind("os/y");
    let plain = builder.encode();
    builder.parent = Some(sum);
    builder.subject = "subject".into();
    builder.body = "body".into();
    builder.metadata.insert("version".into(), "1.2".into());
    let size = [&sum.0[..], &[0x81, 0x01, 0x05, 0x01]].concat();
    builder.metadata.insert(SIZES.into(), Value::BytesArray(vec![size.clone(), size]));
    vec![plain, builder.encode()]
}

pub fn run(data: &[u8]) -> String {
    let result = Commit::decode(data);
    if let Ok(commit) = &result {
        let _ = recorded_sizes(&commit.metadata);
        let _ = commit.ref_bindings();
    }
    super::outcome(result)
}
