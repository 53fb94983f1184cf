//! `host status`, for programs and for people.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::machine::Deployment;
use crate::state::FinalizeResult;
use crate::{Machine, json as format};

/// One deployment as data.
pub fn deployment_json(machine: &Machine, deployment: &Deployment) -> Value {
    let booted = deployment.id == machine.booted.deployment;
    let state = &deployment.state;
    json!({
        "id": deployment.id,
        "commit": deployment.id.commit,
        "serial": deployment.id.serial,
        "version": state.version,
        "state": state.state,
        "booted": booted,
        "default": machine.default().is_some_and(|d| d.id == deployment.id),
        "pinned": state.pinned,
        "held": state.hold,
        "tries": deployment.counter().map(|c| json!({"left": c.left, "done": c.done})),
        "generation": deployment.generation(),
        "timestamp": state.timestamp,
        "level": booted.then(|| machine.booted.level.clone()),
        "signer": if booted { machine.booted.signer.clone() } else { state.signer.clone() },
        "digest": state.digest,
        "ref": state.ref_name,
        "url": state.url,
        "kernel": state.bootcsum,
        "kargs": state.kargs,
        "entry": deployment.entries.first().map(|f| f.file.clone()),
        "reason": state.reason,
        "finalize": state.finalize,
    })
}

/// The machine as data. What `/run/slipway/status.json` holds.
pub fn json(machine: &Machine) -> Value {
    let one = |d: Option<&Deployment>| d.map(|d| deployment_json(machine, d));
    json!({
        "format": format::FORMAT,
        "os": machine.os,
        "booted": booted_json(machine),
        "staged": one(machine.staged()),
        "rollback": one(machine.rollback()),
        "next": machine.default().map(|d| d.id),
        "deployments": machine.deployments.iter().map(|d| deployment_json(machine, d)).collect::<Vec<_>>(),
        "remote": machine.remote,
        "bad": machine.bad.commits,
        "space": {"root": machine.root_space, "esp": machine.esp_space},
        "first_boot": machine.first_boot,
        "problems": machine.problems,
    })
}

/// The running deployment: what prepare-root saw, and what is remembered of it.
fn booted_json(machine: &Machine) -> Value {
    let booted = &machine.booted;
    let mut value = match machine.booted_deployment() {
        Some(deployment) => deployment_json(machine, deployment),
        None => json!({"id": booted.deployment, "commit": booted.commit, "version": null}),
    };
    if let Value::Object(object) = &mut value {
        object.insert("level".into(), booted.level.clone().into());
        object.insert("required".into(), booted.required.clone().into());
        object.insert("signer".into(), booted.signer.clone().into());
        object.insert("digest".into(), booted.digest.clone().into());
    }
    value
}

fn text_of<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// The text for people, from the data: ordinary users read it from a file.
pub fn text(status: &Value, verbose: bool) -> String {
    let mut out = String::new();
    let remote = status.get("remote").unwrap_or(&Value::Null);
    let from = match (text_of(remote, "url"), text_of(remote, "ref")) {
        (Some(url), Some(name)) => format!("{url} {name}"),
        (Some(url), None) => format!("{url} (no ref)"),
        _ => "nowhere (no remote is configured)".to_owned(),
    };
    let note = if flag(remote, "overridden") { " (from /etc/slipway/remote.json)" } else { "" };
    let _ = writeln!(out, "updates from {from}{note}");
    let list = status.get("deployments").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    // The one that the next shutdown switches to comes first, as it will be.
    let staged = |d: &&Value| text_of(d, "state") == Some("staged");
    for deployment in list.iter().filter(staged).chain(list.iter().filter(|d| !staged(d))) {
        one(&mut out, deployment, verbose);
    }
    for (commit, mark) in status.get("bad").and_then(Value::as_object).into_iter().flatten() {
        let label = text_of(mark, "version").unwrap_or(&commit[..commit.len().min(10)]);
        let _ = writeln!(out, "never again by itself: {label}: {}", text_of(mark, "reason").unwrap_or("?"));
    }
    if verbose {
        let record = status.get("first_boot").and_then(|r| serde_json::from_value(r.clone()).ok());
        if let Some(record) = record {
            out.push_str(&crate::firstboot::text(&record));
        }
        for (name, place) in [("root", "/sysroot"), ("esp", "/efi")] {
            let space = status.get("space").and_then(|s| s.get(name));
            let number = |key: &str| space.and_then(|s| s.get(key)).and_then(Value::as_u64).unwrap_or(0);
            let _ = writeln!(out, "{place}: {} of {} MB free", number("free") / 1_000_000, number("total") / 1_000_000);
        }
    }
    for problem in status.get("problems").and_then(Value::as_array).into_iter().flatten() {
        let _ = writeln!(out, "problem: {}", problem.as_str().unwrap_or("?"));
    }
    out
}

fn one(out: &mut String, deployment: &Value, verbose: bool) {
    let commit = text_of(deployment, "commit").unwrap_or("?");
    let short = &commit[..commit.len().min(10)];
    let booted = flag(deployment, "booted");
    let mut marks = vec![text_of(deployment, "state").unwrap_or("?").to_owned()];
    if booted {
        marks.insert(0, "booted".to_owned());
    }
    for (key, mark) in [("default", "boots next"), ("pinned", "pinned"), ("held", "held back by a rollback")] {
        // The running one that boots again is nothing to speak of.
        if flag(deployment, key) && !(key == "default" && booted) {
            marks.push(mark.to_owned());
        }
    }
    if let Some(left) = deployment.get("tries").and_then(|t| t.get("left")).and_then(Value::as_u64) {
        marks.push(format!("{left} {} left", if left == 1 { "try" } else { "tries" }));
    }
    let bullet = if booted { '●' } else { ' ' };
    let version = text_of(deployment, "version").unwrap_or(short);
    let _ = writeln!(out, "{bullet} {version:<16} {}", marks.join(", "));
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "    {name:<9}{value}");
    };
    line("commit", commit);
    match (text_of(deployment, "level"), text_of(deployment, "signer")) {
        (Some(level), Some(signer)) => line(level, &format!("signed by {signer}")),
        (Some(level), None) => line(level, "no signature was checked"),
        (None, Some(signer)) => line("signed", &format!("by {signer}")),
        (None, None) => {}
    }
    if let Some(reason) = text_of(deployment, "reason") {
        line("failed", reason);
    }
    if let Some(finalize) = deployment.get("finalize").filter(|f| !f.is_null()) {
        let result = finalize.get("result").and_then(|r| serde_json::from_value(r.clone()).ok());
        match result {
            Some(FinalizeResult::Failed) => {
                line("problem", &format!("not switched to: {}", text_of(finalize, "error").unwrap_or("?")));
            }
            Some(FinalizeResult::Started) => line("problem", "the switch was cut short"),
            _ => {}
        }
        if verbose {
            for note in finalize.get("notes").and_then(Value::as_array).into_iter().flatten() {
                line("/etc", note.as_str().unwrap_or("?"));
            }
        }
    }
    if verbose {
        for (name, key) in
            [("ref", "ref"), ("url", "url"), ("kernel", "kernel"), ("digest", "digest"), ("entry", "entry")]
        {
            if let Some(value) = text_of(deployment, key) {
                line(name, value);
            }
        }
        let kargs: Vec<&str> =
            deployment.get("kargs").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        if !kargs.is_empty() {
            line("kargs", &kargs.join(" "));
        }
    }
}
