//! Real apt resolves with private directories; fetching and verifying are ours.
