//! The report that CI systems read.

use std::path::Path;

use anyhow::{Context, Result};

use crate::outcome::{Case, Count, Outcome};

/// Writes `cases` as one JUnit test suite.
pub fn write(path: &Path, suite: &str, cases: &[Case]) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    std::fs::write(path, render(suite, cases)).with_context(|| format!("writing {}", path.display()))
}

fn render(suite: &str, cases: &[Case]) -> String {
    let (count, mut seconds, mut body) = (Count::of(cases), 0.0, String::new());
    for case in cases {
        let inner = match &case.outcome {
            Outcome::Passed => String::new(),
            Outcome::Failed(why) => {
                let first = why.lines().next().unwrap_or_default();
                format!("<failure message=\"{}\">{}</failure>", escape(first), escape(why))
            }
            Outcome::Skipped(why) => format!("<skipped message=\"{}\"/>", escape(why)),
        };
        let took = case.took.as_secs_f64();
        seconds += took;
        let (class, name) = (escape(&case.class), escape(&case.name));
        body += &format!("  <testcase classname=\"{class}\" name=\"{name}\" time=\"{took:.1}\">{inner}</testcase>\n");
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{suite}\" tests=\"{}\" failures=\"{}\" \
         skipped=\"{}\" time=\"{seconds:.1}\">\n{body}</testsuite>\n",
        cases.len(),
        count.failed,
        count.skipped
    )
}

fn escape(text: &str) -> String {
    // XML 1.0 has no form at all for most control characters; consoles are full of them.
    let forbidden = |c: char| c.is_control() && c != '\n' && c != '\t';
    text.replace(forbidden, " ").replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn text_from_a_console_is_escaped() {
        let case = |name: &str, outcome| {
            let took = Duration::from_millis(1500);
            Case { class: "scenarios".into(), name: name.into(), outcome, took }
        };
        let cases = [
            case("a", Outcome::Passed),
            case("b", Outcome::Failed("it said \"<x>\"\n\x1b[0m".into())),
            case("c", Outcome::Skipped("a & b".into())),
        ];
        let text = render("scenarios", &cases);
        assert!(text.contains("tests=\"3\" failures=\"1\" skipped=\"1\" time=\"4.5\""), "{text}");
        assert!(text.contains("<failure message=\"it said &quot;&lt;x&gt;&quot;\">"), "{text}");
        assert!(text.contains("<skipped message=\"a &amp; b\"/>") && !text.contains('\x1b'), "{text}");
    }
}
