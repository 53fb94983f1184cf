// Detached metadata, and the signatures in it.

use store::sign::{Keyring, SecretKey};
use store::value::{decode_dict, encode_dict};
use store::{Dict, Value};

pub fn seeds() -> Vec<Vec<u8>> {
    let mut dict = Dict::new();
    let empty = encode_dict(&dict);
    dict.insert("ostree.sign.ed25519".into(), Value::BytesArray(vec![vec![7; 64], vec![8; 64]]));
    dict.insert("note".into(), "text".into());
    vec![empty, encode_dict(&dict)]
}

pub fn run(data: &[u8]) -> String {
    let result = decode_dict(data);
    if let Ok(dict) = &result {
        assert_eq!(decode_dict(&encode_dict(dict)).as_ref().ok(), Some(dict));
        // No key has signed anything here.
        let keyring = Keyring::of([SecretKey::from_seed(&[1; 32]).public()]);
        assert!(keyring.verify(b"commit", dict).is_err(), "a signature out of nothing");
    }
    super::outcome(result)
}
