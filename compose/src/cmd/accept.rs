//! What is accepted of a commit: the same words for every verb that takes one from somewhere.

use std::path::PathBuf;

use store::sign::Keyring;

#[derive(Debug, clap::Args)]
pub struct Accept {
    /// File with public keys: accept only what one of them signed.
    #[arg(long, value_name = "FILE")]
    keyring: Vec<PathBuf>,
    /// Accept a commit that nobody signed.
    #[arg(long)]
    pub allow_unsigned: bool,
    /// Accept a commit older than the one that is there.
    #[arg(long)]
    pub allow_downgrade: bool,
}

impl Accept {
    /// The keys, if any were named.
    pub fn keyring(&self) -> anyhow::Result<Option<Keyring>> {
        let mut keyring = Keyring::default();
        for file in &self.keyring {
            keyring.add_file(file)?;
        }
        Ok((!self.keyring.is_empty()).then_some(keyring))
    }
}
