//! Who a call reaches: by name, by number, and who it must not reach.

use anyhow::Result;
use serde_json::json;
use virtagent_tests::local::{Guest, account, is_root};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_reaches_the_system_level_or_the_user_it_names_by_name_or_number() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let _nobody = guest.user("nobody")?;
    let _games = guest.user("games")?;
    let host = guest.host().await?;
    assert!(host.capabilities.ours);
    let whoami = json!({"argv": ["id", "-u"]});
    let games = account("games")?.uid.to_string();
    for (user, uid) in [("nobody", "65534"), ("65534", "65534"), ("games", &*games), (&*games, &*games)] {
        let done = host.call_as(user, "exec.run", whoami.clone()).await?;
        assert_eq!(done["exit_code"], 0, "{done}");
        assert_eq!(text(&done["stdout"]), format!("{uid}\n"), "as {user}");
    }
    let done = host.call("exec.run", whoami).await?;
    assert_eq!(text(&done["stdout"]), "0\n");
    let listed = host.call("session.list", json!(null)).await?;
    let names: Vec<_> = listed["sessions"].as_array().into_iter().flatten().map(|s| s["username"].clone()).collect();
    assert_eq!(names, ["games", "nobody"]);
    Ok(())
}

/// Bytes of a result as text.
pub fn text(bytes: &serde_json::Value) -> String {
    use base64::Engine;
    let coded = bytes["$base64"].as_str().unwrap_or_else(|| panic!("no bytes: {bytes}"));
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(coded).unwrap()).unwrap()
}
