//! stub
use nix::unistd::Uid;
use crate::rpc::Fault;
#[allow(missing_docs)]
pub struct LoginSession { pub id: String, pub uid: Uid, pub seat: Option<String>, pub kind: String, pub active: bool, pub locked: bool }
#[allow(missing_docs)]
pub struct Logind;
#[allow(missing_docs)]
impl Logind { pub fn system() -> Self { Logind } pub async fn sessions(&self) -> Result<Vec<LoginSession>, Fault> { Ok(vec![]) } pub async fn active_user(&self, _seat: &str) -> Result<Option<Uid>, Fault> { Ok(None) } }
