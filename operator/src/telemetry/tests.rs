use kube::core::Status;
use kube::runtime::watcher;

use super::*;

#[test]
fn errors_are_said_once_and_the_api_servers_answers_in_its_words() {
    let status = Status { code: 403, ..Status::failure("nodes is forbidden", "Forbidden") };
    let error = watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()));
    assert_eq!(words(&error), "failed to perform initial object list: the API server answers 403: nodes is forbidden");
    let refused = std::io::Error::other("connection refused");
    let error = watcher::Error::WatchStartFailed(kube::Error::Service(refused.into()));
    assert_eq!(words(&error), "failed to start watching object: ServiceError: connection refused");
}
