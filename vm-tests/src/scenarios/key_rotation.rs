//! Signing keys change while machines follow.
//!
//! ```text
//! version 1    trusts old         signed by old              the image
//! version 2    trusts old, new    signed by old and new      composed here
//! version 3    trusts new         signed by new; revokes old
//! version 4    as 2               signed by old              who stole the old key
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use sys::Cmd;

use crate::artifacts::{REF, UPDATES};
use crate::context::Context;
use crate::world::State;

/// The build side of the rotation: a copy of the demo's repository, and two keys.
struct Build<'c> {
    context: &'c Context<'c>,
    /// What `make demo` left.
    demo: PathBuf,
    /// Where the published repository of each step goes.
    published: PathBuf,
}

impl Build<'_> {
    fn slipway(&self) -> Cmd {
        Cmd::new(&self.context.world.slipway)
    }

    fn repo(&self) -> PathBuf {
        self.context.dir.join("repo-build")
    }

    fn key(&self, new: bool) -> PathBuf {
        if new { self.context.dir.join("new.key") } else { self.context.artifacts().key.clone() }
    }

    fn public(key: &Path) -> Result<String> {
        let file = key.with_extension("key.pub");
        std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
    }

    /// Composes the demo's second version with other keys, signs it, and publishes it.
    fn version(&self, name: &str, trusts_old: bool, trusts_new: bool, by: &[bool]) -> Result<String> {
        let dir = &self.context.dir;
        let (old, new) = (Self::public(&self.key(false))?, Self::public(&self.key(true))?);
        let keys: Vec<&str> = [(trusts_old, old.trim()), (trusts_new, new.trim())]
            .into_iter()
            .filter_map(|(trusted, key)| trusted.then_some(key))
            .collect();
        let v2 = std::fs::read_to_string(self.demo.join("v2.yaml")).context("reading the demo's v2.yaml")?;
        let include = v2.lines().find(|line| line.starts_with("include:")).context("v2.yaml includes nothing")?;
        let mut text =
            format!("{include}\nremotes:\n  default:\n    url: http://{UPDATES}\n    ref: {REF}\n    keys:\n");
        keys.iter().for_each(|key| text += &format!("      - {key}\n"));
        let mut files = vec![(format!("rotation-{name}"), "/usr/share/slipway/rotation".to_owned(), name.to_owned())];
        if !trusts_old {
            files.push(("old.revoked".into(), "/usr/share/ostree/revoked.ed25519.d/old.ed25519".into(), old));
        }
        text += "add-files:\n";
        for (source, target, content) in files {
            std::fs::write(dir.join(&source), content)?;
            text += &format!("  - [{source}, {target}]\n");
        }
        let treefile = dir.join(format!("rotation-{name}.yaml"));
        std::fs::write(&treefile, text)?;

        let target = self.demo.parent().unwrap_or(&self.demo);
        let compose = self.slipway().arg("compose").arg(&treefile).arg("--repo").arg(self.repo());
        let compose = compose.arg("--cachedir").arg(target.join("cache")).arg("--workdir").arg(dir.join("work"));
        let compose = compose.arg("--local-packages").arg(target.join("deb"));
        let compose = compose.arg("--sign-key").arg(self.key(by[0])).arg("--json");
        let result: serde_json::Value = serde_json::from_slice(&compose.run()?.stdout).context("compose --json")?;
        let commit = result["commit"].as_str().context("compose --json has no commit")?.to_owned();
        for key in &by[1..] {
            let sign = self.slipway().args(["sign", &commit]).arg("--repo").arg(self.repo());
            sign.arg("--key").arg(self.key(*key)).run()?;
        }
        self.slipway().args(["publish", REF]).arg("--repo").arg(self.repo()).arg(&self.published).run()?;
        Ok(commit)
    }
}

pub fn run(context: &Context<'_>) -> Result<()> {
    let artifacts = context.artifacts();
    let demo = artifacts.repo.parent().context("the demo's directory")?.to_owned();
    let published = context.repository()?.path;
    let build = Build { context, demo, published };
    Cmd::new("cp").args(["-al", "--"]).arg(build.demo.join("build-repo")).arg(build.repo()).run()?;
    build.slipway().args(["key", "new"]).arg(build.key(true)).run()?;
    let two = build.version("2", true, true, &[false, true])?;
    let server = context.serve(&build.published, &[])?;

    // From 1 to 2 and back: each version boots with the keys of its own initramfs.
    let guest = context.resume(State::Booted, &server)?;
    guest.host_ok("upgrade")?;
    guest.staged(&two)?;
    guest.restart_onto("host reboot", &two)?;
    guest.on(&two)?;
    guest.blessed()?;
    guest.restart_onto("host rollback --reboot", &artifacts.v1)?;
    guest.on(&artifacts.v1)?;

    // On 1 again, and 3 is out: the machine is told the way over 2, which is here.
    let three = build.version("3", false, true, &[true])?;
    let said = guest.host_fails("upgrade", 3)?;
    ensure!(said.contains(&format!("host deploy --reboot {two}")), "the way is not told: {said}");
    guest.nothing_staged()?;
    guest.restart_onto(&format!("host deploy --reboot {two}"), &two)?;
    guest.blessed()?;
    guest.host_ok("upgrade")?;
    guest.staged(&three)?;
    guest.restart_onto("host reboot", &three)?;
    guest.on(&three)?;
    guest.blessed()?;

    // The old key is worth nothing any more.
    let stolen = build.version("4", true, true, &[false])?;
    let said = guest.host_fails("upgrade", 3)?;
    ensure!(said.contains("revoked"), "why {stolen} is refused is not said: {said}");
    guest.nothing_staged()?;
    // And the way back to 2 is open: its own keys accept it.
    guest.restart_onto("host rollback --reboot", &two)?;
    guest.on(&two)?;
    Ok(())
}
