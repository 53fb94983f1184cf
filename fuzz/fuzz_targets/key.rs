// Files of public keys in PEM: each key in them is one, or the file is refused; and no key has signed what nobody signed.

use store::sign::spki::Keyring;

/// Keys that openssl made: ed25519, ECDSA with P-256, RSA with 2048 bits.
const KEYS: [&str; 3] = [
    "MCowBQYDK2VwAyEAd4CVwbgLqt19rl9BMd9EvwfkLBhhnvVnAUq4SZLwwTQ=",
    concat!(
        "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEWubuHCaYJcS5/PV3BoDIPXNggRBnegGs0QJev28xljG6rZTy5lByOycGoLgK9Bgd",
        "zD2breki8Sksx+sOJK7ynw==",
    ),
    concat!(
        "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAmmjTgihRJemOdslQMU4iO7k2H5Ce1UIXI+fW1kdaMKo+UAzpwWQnbYIE",
        "I3RcBkP1hB2RjdM5Q6bADe6hsZCLvprq6GZWFGLCP/Def4Swg+Q+r45U12+mU9Pd1CKqCHkzPx/ZiUYZkxRyoPS/yh4T4EHbc97c",
        "+4MxgufgKx+YVP7+Z94MjhF7YokDE6UFCXnA1b+LjxlxiHmS9QhQvOzFZRP3LID9xHvuR810u55BY0IunAn7jEN+SSp5uJJdHRVe",
        "B3IpM+VQL6Qvy573Paf172aqfB7FeYXqoBddXW4B6T7/PHNqltngJSjVquUGKxqKbJl/LN7rSFnLSE07xzYS6wIDAQAB",
    ),
];

pub fn seeds() -> Vec<Vec<u8>> {
    let pem = |key: &&str| {
        let lines: Vec<&str> = (0..key.len()).step_by(64).map(|at| &key[at..key.len().min(at + 64)]).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    };
    let mut files: Vec<String> = KEYS.iter().map(pem).collect();
    files.push(files.concat());
    files.into_iter().map(String::into_bytes).collect()
}

pub fn run(data: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().expect("a scratch file");
    std::fs::write(file.path(), String::from_utf8_lossy(data).as_bytes()).expect("the file");
    let mut keyring = Keyring::default();
    let result = keyring.add_file(file.path());
    for key in keyring.keys() {
        for signature in [&[][..], &[0; 64], &[0; 256], data] {
            assert!(!key.verifies(b"commit", signature), "a signature out of nothing");
        }
    }
    super::outcome(result)
}
