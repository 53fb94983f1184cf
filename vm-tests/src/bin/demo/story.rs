//! A list of steps, told one line each, recorded in `result.json`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use sys::{Cmd, Reporter};

use crate::transcript::Transcript;

/// One step as `result.json` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    name: String,
    /// `ok`, or why not.
    outcome: String,
    seconds: f64,
}

/// What is left under `target/demo/result.json`.
#[derive(Debug, Serialize)]
struct Outcome<'a> {
    format: &'static str,
    /// Empty where nobody can tell; `git_commit_missing` then says why.
    git_commit: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    git_commit_missing: Option<&'a str>,
    /// Commits that were composed, by version of the story: `1`, `2`.
    commits: &'a std::collections::BTreeMap<String, String>,
    steps: &'a [Step],
}

/// The demo while it runs.
pub struct Story {
    /// `target/demo`.
    pub dir: PathBuf,
    /// Commits by version of the story.
    pub commits: std::collections::BTreeMap<String, String>,
    /// The commit of the sources, or why nobody can tell.
    pub git_commit: Result<String, String>,
    reporter: Reporter,
    transcript: Transcript,
    steps: Vec<Step>,
}

impl Story {
    /// Starts a story whose artifacts lie in `dir`.
    pub fn begin(dir: &Path, source: &Path) -> Result<Story> {
        Ok(Story {
            dir: dir.to_owned(),
            commits: Default::default(),
            git_commit: git_commit(source),
            reporter: Reporter::new(),
            transcript: Transcript::create(&dir.join("transcript.txt"))?,
            steps: Vec::new(),
        })
    }

    /// Tells one step. `body` returns what the line says when all is as it should be.
    pub fn step(&mut self, name: &str, body: impl FnOnce(&mut Story) -> Result<String>) -> Result<()> {
        self.step_with(name, |story| Ok(((), body(story)?)))
    }

    /// Tells one step that leaves something for later ones.
    pub fn step_with<T>(&mut self, name: &str, body: impl FnOnce(&mut Story) -> Result<(T, String)>) -> Result<T> {
        self.transcript.heading(name)?;
        let progress = self.reporter.step(name, 0);
        let start = Instant::now();
        let result = body(self);
        let seconds = (start.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let outcome = match &result {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        self.transcript.note(&format!("{name}: {outcome}"))?;
        self.steps.push(Step { name: name.to_owned(), outcome, seconds });
        self.save()?;
        match result {
            Ok((left, detail)) => {
                progress.done(detail);
                Ok(left)
            }
            Err(error) => {
                drop(progress);
                Err(error.context(format!("step \"{name}\" failed")))
            }
        }
    }

    /// Runs a command, recorded; exit code 0 is wanted. Returns its standard output as text.
    pub fn run(&mut self, cmd: Cmd) -> Result<String> {
        Ok(self.transcript.run(&cmd)?.text())
    }

    /// Runs a command, recorded; any exit code.
    pub fn run_any(&mut self, cmd: Cmd) -> Result<sys::Output> {
        self.transcript.run_any(&cmd)
    }

    fn save(&self) -> Result<()> {
        let outcome = Outcome {
            format: "1.0",
            git_commit: self.git_commit.as_deref().unwrap_or_default(),
            git_commit_missing: self.git_commit.as_ref().err().map(String::as_str),
            commits: &self.commits,
            steps: &self.steps,
        };
        let path = self.dir.join("result.json");
        sys::file::replace(&path, &serde_json::to_vec_pretty(&outcome)?, 0o644)
            .with_context(|| format!("writing {}", path.display()))
    }
}

/// The commit of the sources. A package of the sources has none.
fn git_commit(source: &Path) -> Result<String, String> {
    // Root builds somebody else's checkout here, which git wants to be told is fine.
    let safe = format!("safe.directory={}", source.display());
    let git = Cmd::new("git").args(["-c", &safe, "rev-parse", "HEAD"]).dir(source).output();
    match git {
        Ok(output) if output.code == 0 => Ok(output.text()),
        Ok(output) => Err(output.errors().lines().next().unwrap_or("git rev-parse failed").to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkout with one commit.
    fn checkout() -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let git = |args: &[&str]| {
            let identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"];
            Cmd::new("git").args(identity).args(args).dir(dir.path()).run().unwrap().text()
        };
        git(&["init", "--quiet"]);
        git(&["commit", "--quiet", "--allow-empty", "--message", "x"]);
        let commit = git(&["rev-parse", "HEAD"]);
        (dir, commit)
    }

    #[test]
    fn the_commit_of_somebody_elses_checkout_is_known() {
        let (dir, commit) = checkout();
        if rustix::process::geteuid().is_root() {
            Cmd::new("chown").args(["-R", "65534:65534"]).arg(dir.path()).run().unwrap();
        }
        assert_eq!(git_commit(&dir.path().canonicalize().unwrap()), Ok(commit));
    }

    #[test]
    fn sources_without_history_say_so() {
        let dir = tempfile::tempdir().unwrap();
        assert!(git_commit(dir.path()).unwrap_err().contains("not a git repository"));
        let mut story = Story::begin(dir.path(), dir.path()).unwrap();
        story.step("nothing", |_| Ok(String::new())).unwrap();
        assert!(story.step_with("a server", |_| -> Result<((), String)> { anyhow::bail!("no port") }).is_err());
        let text = std::fs::read_to_string(dir.path().join("result.json")).unwrap();
        let result: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(result["git_commit"], "");
        assert!(result["git_commit_missing"].as_str().unwrap().contains("git"), "{text}");
        assert_eq!((&result["steps"][0]["outcome"], &result["steps"][1]["outcome"]), (&"ok".into(), &"no port".into()));
    }
}
