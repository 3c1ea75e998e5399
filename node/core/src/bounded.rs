//! Lists in messages, refused while they are read: some elements take a hundred times more memory than bytes in a
//! message, so that a check afterwards comes too late (INV-BOUND).

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// A list of at most `MAX` elements.
pub(crate) fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(List::<T, MAX>(PhantomData))
}

struct List<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a list of at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    #[derive(PartialEq, Debug, Deserialize)]
    struct Few(#[serde(deserialize_with = "super::list::<_, _, 2>")] Vec<u8>);

    #[test]
    fn one_too_many_is_refused() {
        let read = |list: &[u8]| postcard::from_bytes::<Few>(&postcard::to_stdvec(list).unwrap());
        assert_eq!(read(&[]), Ok(Few(vec![])));
        assert_eq!(read(&[1, 2]), Ok(Few(vec![1, 2])));
        assert!(read(&[1, 2, 3]).is_err());
    }
}
