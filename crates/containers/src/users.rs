//! Who a process becomes: names looked up in the container's own `/etc/passwd` and `/etc/group`.

use serde::{Deserialize, Serialize};

/// What image and pod ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRequest {
    /// The image's `user[:group]`, names or numbers; used when there is no `user_id`.
    pub image_user: String,
    pub user_id: Option<u32>,
    pub group_id: Option<u32>,
    pub supplemental_groups: Vec<u32>,
    /// Leave out the groups that `/etc/group` gives the user.
    pub strict: bool,
}

/// The identity found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub user_id: u32,
    pub group_id: u32,
    /// All groups, the primary one first.
    pub groups: Vec<u32>,
    pub home: String,
}

struct PasswdEntry<'a> {
    name: &'a str,
    user_id: u32,
    group_id: u32,
    home: &'a str,
}

/// Finds the identity, given the texts of the two files (empty when missing).
pub fn resolve(request: &UserRequest, passwd: &str, group: &str) -> Result<User, String> {
    let (image_user, image_group) = match request.image_user.split_once(':') {
        Some((user, group)) => (user, group),
        None => (request.image_user.as_str(), ""),
    };
    let wanted = match request.user_id {
        Some(id) => id.to_string(),
        None if image_user.is_empty() => "0".into(),
        None => image_user.to_owned(),
    };
    let entry = entries(passwd).find(|entry| entry.name == wanted).or_else(|| {
        wanted.parse().ok().and_then(|id: u32| entries(passwd).find(|entry| entry.user_id == id))
    });
    let user_id = match (&entry, wanted.parse::<u32>()) {
        (Some(entry), _) => entry.user_id,
        (None, Ok(id)) => id,
        (None, Err(_)) => {
            return Err(format!("unable to find user {wanted}: no matching entries in passwd file"));
        }
    };
    let mut group_id = entry.as_ref().map_or(0, |entry| entry.group_id);
    if request.user_id.is_none() && !image_group.is_empty() {
        group_id = find_group(image_group, group)?;
    }
    group_id = request.group_id.unwrap_or(group_id);
    let mut groups = vec![group_id];
    if let (Some(entry), false) = (&entry, request.strict) {
        groups.extend(groups_of(entry.name, group));
    }
    groups.extend(&request.supplemental_groups);
    let mut seen = std::collections::BTreeSet::new();
    groups.retain(|id| seen.insert(*id));
    let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
    Ok(User { user_id, group_id, groups, home })
}

fn entries(passwd: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (user_id, group_id) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(PasswdEntry { name, user_id, group_id, home: fields.nth(1).unwrap_or_default() })
    })
}

fn group_lines(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        Some((name, fields.next()?.parse().ok()?, fields.next().unwrap_or_default()))
    })
}

fn find_group(wanted: &str, group: &str) -> Result<u32, String> {
    let found = group_lines(group).find(|(name, ..)| *name == wanted).map(|(_, id, _)| id);
    found
        .or_else(|| wanted.parse().ok())
        .ok_or_else(|| format!("unable to find group {wanted}: no matching entries in group file"))
}

fn groups_of(user: &str, group: &str) -> Vec<u32> {
    let member = |members: &str| members.split(',').any(|name| name.trim() == user);
    group_lines(group).filter(|(.., members)| member(members)).map(|(_, id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/var/www:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nvideo:x:44:web,root\nstaff:x:50:nobody\n";

    fn check(request: UserRequest, expected: &str) {
        let found = match resolve(&request, PASSWD, GROUP) {
            Ok(user) => format!("{}:{} {:?} {}", user.user_id, user.group_id, user.groups, user.home),
            Err(error) => error,
        };
        assert_eq!(found, expected, "{request:?}");
    }

    fn image(user: &str) -> UserRequest {
        UserRequest { image_user: user.into(), ..UserRequest::default() }
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        check(image(""), "0:0 [0, 44] /root");
        check(image("web"), "33:33 [33, 44] /var/www");
        check(image("33"), "33:33 [33, 44] /var/www");
        check(image("web:staff"), "33:50 [50, 44] /var/www");
        check(image("1000"), "1000:0 [0] /");
        check(image("1000:7"), "1000:7 [7] /");
        check(image("nobody"), "unable to find user nobody: no matching entries in passwd file");
        check(image("web:nogroup"), "unable to find group nogroup: no matching entries in group file");
    }

    #[test]
    fn the_pod_overrides_the_image() {
        let request =
            UserRequest { user_id: Some(1000), supplemental_groups: vec![5, 0], ..image("web:staff") };
        check(request.clone(), "1000:0 [0, 5] /");
        check(UserRequest { group_id: Some(9), ..request }, "1000:9 [9, 5, 0] /");
        check(UserRequest { user_id: Some(33), strict: true, ..image("") }, "33:33 [33] /var/www");
        check(UserRequest { group_id: Some(9), ..image("web") }, "33:9 [9, 44] /var/www");
    }
}
