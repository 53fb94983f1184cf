//! Plans as people read them: `tests/scripts/*.txt`.
//!
//! ```text
//! booted 1                                     the running deployment, by version
//! esp 100 / root 100                           MB free
//! bad 3 it hung                                a commit that failed here
//! stray FILE / leftover NAME                   what a crash left
//! 1 good 1 plain kernel=a pinned held          version, state, generation, entry counters (plain, +3, +0-3), flags
//! > stage 2 time=200 kernel=b size=40          a verb; what follows is its plan or its refusal
//! ```
//! `UPDATE_GOLDEN=1 cargo test -p deploy --test plans` writes what the planners say now.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use bootloader::{BootVariables, Counter, EntryName, Found};
use deploy::machine::{Booted, Deployment, Machine, Space};
use deploy::plan::{self, Bad, Downgrade, Facts, Plan, Refusal, Staged, Target};
use deploy::state::{BadMark, BadMarks, StateFile};
use deploy::treeinfo::Remote;
use deploy::{DeploymentId, first};
use store::Checksum;

/// Version 1 is commit 1111…, version 2 is 2222….
fn commit(version: &str) -> Checksum {
    let digit = version.bytes().last().unwrap_or(b'0') as char;
    digit.to_string().repeat(64).parse().unwrap()
}

fn kernel(name: &str) -> String {
    name.repeat(64)[..64].to_owned()
}

fn value<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
}

struct Script {
    machine: Machine,
}

impl Script {
    fn new() -> Script {
        let id = DeploymentId { commit: commit("1"), serial: 0 };
        let booted = Booted {
            os: "slipway".into(),
            deployment: id,
            commit: id.commit,
            digest: None,
            level: "verified".into(),
            required: None,
            signer: None,
            rest: BTreeMap::new(),
        };
        let space = Space { free: 1_000_000_000, total: 2_000_000_000 };
        let machine = Machine {
            os: "slipway".into(),
            booted,
            deployments: Vec::new(),
            stray_entries: Vec::new(),
            leftovers: Vec::new(),
            kernels: BTreeMap::new(),
            boot: BootVariables::default(),
            remote: Remote::default(),
            bad: BadMarks::default(),
            root_space: space,
            esp_space: space,
            first_boot: None,
            problems: Vec::new(),
        };
        Script { machine }
    }

    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mb = |text: &str| text.parse::<u64>().unwrap() * 1_000_000;
        match words.as_slice() {
            ["booted", version] => {
                self.machine.booted.commit = commit(version);
                self.machine.booted.deployment = DeploymentId { commit: commit(version), serial: 0 };
            }
            ["esp", free] => self.machine.esp_space.free = mb(free),
            ["root", free] => self.machine.root_space.free = mb(free),
            ["stray", file] => self.machine.stray_entries.push((*file).into()),
            ["leftover", name] => self.machine.leftovers.push((*name).into()),
            ["kernel", name] => {
                self.machine.kernels.insert(kernel(name), 36_000_000);
            }
            ["bad", version, reason @ ..] => {
                let version = (*version).to_owned();
                let mark =
                    BadMark { version: Some(version.clone()), reason: reason.join(" "), at: 1, rest: BTreeMap::new() };
                self.machine.bad.commits.insert(commit(&version).to_string(), mark);
            }
            [version, state, generation, flags @ ..] => self.deployment(version, state, generation, flags),
            _ => panic!("what is `{line}`?"),
        }
    }

    fn deployment(&mut self, version: &str, state: &str, generation: &str, flags: &[&str]) {
        let id = DeploymentId { commit: commit(version), serial: 0 };
        let bootcsum = kernel(value(flags, "kernel").unwrap_or("a"));
        self.machine.kernels.insert(bootcsum.clone(), 36_000_000);
        let generation: u64 = generation.parse().unwrap();
        let json = serde_json::json!({
            "state": state, "version": version, "bootcsum": bootcsum, "generation": generation,
            "title": format!("Linux ({version})"), "timestamp": version.bytes().last().unwrap_or(b'0') - b'0',
            "pinned": flags.contains(&"pinned"), "hold": flags.contains(&"held"),
        });
        let state: StateFile = serde_json::from_value(json).unwrap();
        let name = id.entry_name("slipway");
        let entry = first::entry("slipway", &id, &state, generation);
        let entries = flags
            .iter()
            .filter_map(|flag| match flag.strip_prefix('+') {
                Some(text) => {
                    let (left, done) = text.split_once('-').unwrap_or((text, "0"));
                    Some(name.with(Some(Counter { left: left.parse().unwrap(), done: done.parse().unwrap() })))
                }
                None if *flag == "plain" => Some(name.clone()),
                None => None,
            })
            .map(|name: EntryName| Found { file: name.to_string(), name: Some(name), entry: entry.clone() })
            .collect();
        self.machine.deployments.push(Deployment { id, state, entries });
    }

    fn verb(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let id = |version: &str| DeploymentId { commit: commit(version), serial: 0 };
        let machine = &self.machine;
        let staged = if words.contains(&"drop") { Staged::Drop } else { Staged::Hold };
        let result: Result<Plan, Refusal> = match words[0] {
            "stage" => {
                let downgrade = if words.contains(&"downgrade") { Downgrade::Allow } else { Downgrade::Refuse };
                let bad = if words.contains(&"allow-bad") { Bad::Allow } else { Bad::Refuse };
                plan::stage(machine, &target(words[1], &words), downgrade, bad)
            }
            "finalize" => Ok(plan::finalize(machine, 1, Vec::new())),
            "bless" => Ok(plan::bless(machine, Facts { now: 1, watchdog: words.contains(&"watchdog") })),
            "reject" => plan::reject(machine, "it is unwell", 1),
            "rollback" => plan::rollback(machine, staged),
            "switch" => plan::switch_to(machine, &id(words[1]), staged),
            "pin" => plan::pin(machine, &id(words[1]), true),
            "prune" => Ok(plan::prune(machine)),
            verb => panic!("what is `{verb}`?"),
        };
        match result {
            Ok(plan) => plan.to_string(),
            Err(refusal) => {
                let hint = refusal.hint().map(|h| format!("hint: {h}\n")).unwrap_or_default();
                format!("refused: {refusal}\n{hint}")
            }
        }
    }
}

fn target(version: &str, words: &[&str]) -> Target {
    let number = |key: &str, default: u64| value(words, key).map_or(default, |v| v.parse().unwrap());
    Target {
        commit: commit(version),
        os: value(words, "os").unwrap_or("slipway").into(),
        version: Some(version.into()),
        timestamp: number("time", version.bytes().last().map_or(0, |b| u64::from(b - b'0'))),
        ref_name: Some("debian/13".into()),
        url: Some("http://updates".into()),
        signer: None,
        title: format!("Linux ({version})"),
        bootcsum: kernel(value(words, "kernel").unwrap_or("a")),
        kernel_size: number("size", 36) * 1_000_000,
        image_size: 2_300_000,
        etc_size: 700_000,
        digest: (!words.contains(&"undigested")).then(|| "d".repeat(64)),
        kargs: Vec::new(),
        etc_conflicts: value(words, "conflict").map(str::to_owned).into_iter().collect(),
    }
}

/// The same script with the answers of today.
fn replay(text: &str) -> String {
    let (mut script, mut out) = (Script::new(), String::new());
    let mut answer = false;
    for line in text.lines() {
        if let Some(verb) = line.strip_prefix("> ") {
            let _ = writeln!(out, "{line}");
            out.push_str(&script.verb(verb));
            answer = true;
        } else if line.is_empty() {
            out.push('\n');
            answer = false;
        } else if !answer {
            // A story begins anew with its title.
            if line.starts_with('#') {
                script = Script::new();
            } else {
                script.line(line);
            }
            let _ = writeln!(out, "{line}");
        }
    }
    out
}

#[test]
fn plans_read_like_this() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut scripts: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|f| f.unwrap().path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for path in scripts {
        let text = std::fs::read_to_string(&path).unwrap();
        let now = replay(&text);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, now).unwrap();
        } else if text != now {
            panic!("{} reads differently now:\n{now}", path.display());
        }
    }
}
