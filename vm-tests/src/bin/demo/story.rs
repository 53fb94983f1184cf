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
    git_commit: String,
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
    git_commit: String,
    reporter: Reporter,
    transcript: Transcript,
    steps: Vec<Step>,
}

impl Story {
    /// Starts a story whose artifacts lie in `dir`.
    pub fn begin(dir: &Path, source: &Path) -> Result<Story> {
        // A package of the sources has no git history; the field is then empty.
        let git = Cmd::new("git").args(["rev-parse", "HEAD"]).dir(source).output();
        let git_commit = git.ok().filter(|o| o.code == 0).map(|o| o.text()).unwrap_or_default();
        Ok(Story {
            dir: dir.to_owned(),
            commits: Default::default(),
            git_commit,
            reporter: Reporter::new(),
            transcript: Transcript::create(&dir.join("transcript.txt"))?,
            steps: Vec::new(),
        })
    }

    /// Tells one step. `body` returns what the line says when all is as it should be.
    pub fn step(&mut self, name: &str, body: impl FnOnce(&mut Story) -> Result<String>) -> Result<()> {
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
            Ok(detail) => {
                progress.done(detail);
                Ok(())
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
        let outcome =
            Outcome { format: "1.0", git_commit: self.git_commit.clone(), commits: &self.commits, steps: &self.steps };
        let path = self.dir.join("result.json");
        sys::file::replace(&path, &serde_json::to_vec_pretty(&outcome)?, 0o644)
            .with_context(|| format!("writing {}", path.display()))
    }
}
