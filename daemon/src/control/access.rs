//! Who may use the socket: root, the daemon's own user, and one group.
//!
//! The mode of the socket (0660) says so already; the kernel's word on who connected
//! (SO_PEERCRED, unix(7)) is checked as well: a mode can be changed by hand.

use std::path::Path;

use tokio::net::unix::UCred;

/// The rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    own_uid: u32,
    group: Option<u32>,
}

/// Who connected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Visitor {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

impl Access {
    /// The rule with the group of this name, if the system has it.
    pub fn new(group: Option<&str>) -> Access {
        let gid = group.and_then(gid_of);
        if let (Some(group), None) = (group, gid) {
            tracing::info!(
                group,
                "no such group: only root and this user may use the socket"
            );
        }
        Access {
            own_uid: rustix::process::geteuid().as_raw(),
            group: gid,
        }
    }

    /// The group that the socket is given to.
    pub fn group(&self) -> Option<u32> {
        self.group
    }

    pub fn allows(&self, visitor: &Visitor) -> bool {
        let member = |group| visitor.gid == group || visitor.groups.contains(&group);
        visitor.uid == 0 || visitor.uid == self.own_uid || self.group.is_some_and(member)
    }
}

impl Visitor {
    /// The user behind `credentials`, with the groups of the process as far as they can be read.
    pub fn of(credentials: &UCred) -> Visitor {
        let status = credentials.pid().map(|pid| format!("/proc/{pid}/status"));
        let status = status.and_then(|path| std::fs::read_to_string(path).ok());
        Visitor {
            uid: credentials.uid(),
            gid: credentials.gid(),
            groups: status.as_deref().map(groups_of).unwrap_or_default(),
        }
    }
}

/// The supplementary groups in a /proc/PID/status (proc_pid_status(5)).
fn groups_of(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    line.unwrap_or_default()
        .split_whitespace()
        .filter_map(|gid| gid.parse().ok())
        .collect()
}

/// The number of a group: by /etc/group, else by whatever else the system asks (getent(1)).
fn gid_of(group: &str) -> Option<u32> {
    if let Ok(gid) = group.parse() {
        return Some(gid);
    }
    let file = std::fs::read_to_string(Path::new("/etc/group")).unwrap_or_default();
    gid_in(&file, group).or_else(|| {
        let output = std::process::Command::new("getent")
            .args(["group", group])
            .output()
            .ok()?;
        gid_in(&String::from_utf8(output.stdout).ok()?, group)
    })
}

/// The number of a group in a file like /etc/group (group(5)).
fn gid_in(file: &str, group: &str) -> Option<u32> {
    let mut lines = file.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let named = fields.next() == Some(group);
        fields.nth(1).filter(|_| named)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Access = Access {
        own_uid: 500,
        group: Some(70),
    };

    fn visitor(uid: u32, gid: u32, groups: &[u32]) -> Visitor {
        Visitor {
            uid,
            gid,
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn root_the_own_user_and_the_group_may_ask() {
        assert!(RULE.allows(&visitor(0, 0, &[])));
        assert!(RULE.allows(&visitor(500, 1, &[])));
        assert!(RULE.allows(&visitor(7, 70, &[])));
        assert!(RULE.allows(&visitor(7, 7, &[6, 70])));
    }

    #[test]
    fn everybody_else_may_not() {
        assert!(!RULE.allows(&visitor(7, 7, &[6, 8])));
        let no_group = Access {
            own_uid: 500,
            group: None,
        };
        assert!(!no_group.allows(&visitor(7, 70, &[70])));
    }

    #[test]
    fn groups_are_read_from_the_system_files() {
        assert_eq!(
            gid_in("root:x:0:\nforeshadow:x:994:anna,ben\n", "foreshadow"),
            Some(994)
        );
        assert_eq!(gid_in("foreshadowy:x:1:\n", "foreshadow"), None);
        assert_eq!(gid_of("root"), Some(0));
        assert_eq!(groups_of("Uid:\t1\nGroups:\t4 70 \nNStgid:\t1\n"), [4, 70]);
    }
}
