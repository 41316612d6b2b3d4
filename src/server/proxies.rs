//! Whose request it is that a proxy hands on. Only proxies that are named are believed, and of what they say only what
//! one of them has seen: whatever stands before it in the list, the client may have written.

use std::net::IpAddr;
use std::str::FromStr;

/// An address, or a network of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNet {
    address: IpAddr,
    /// How many bits at its beginning count.
    prefix_len: u32,
}

/// The proxies that are believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl FromStr for IpNet {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "it is an address, or a network such as 10.0.0.0/8";
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| EXPECTED)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().map_err(|_| EXPECTED)?,
            Some(_) => return Err(EXPECTED),
            None => all,
        };
        if bits > all { Err(EXPECTED) } else { Ok(Self { address, prefix_len: bits }) }
    }
}

impl IpNet {
    fn contains(&self, address: IpAddr) -> bool {
        let differing = match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros(),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros(),
            _ => return false,
        };
        differing >= self.prefix_len
    }
}

impl From<Vec<IpNet>> for TrustedProxies {
    fn from(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }
}

impl TrustedProxies {
    /// Whether the one at this address is believed.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whose request it is that came from `peer` with this `X-Forwarded-For`.
    ///
    /// The last address in the list that is no trusted proxy, or the first if all are; `peer` if it is not believed, or
    /// says what is no address.
    pub(super) fn client_addr(&self, peer: IpAddr, forwarded: &str) -> IpAddr {
        if !self.contains(peer) {
            return peer;
        }
        let mut client = peer;
        for part in forwarded.rsplit(',') {
            let Ok(address) = part.trim().parse() else { return peer };
            client = address;
            if !self.contains(client) {
                break;
            }
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(networks: &str) -> TrustedProxies {
        networks.split(',').map(|network| network.parse().unwrap()).collect::<Vec<_>>().into()
    }

    #[test]
    fn a_network_contains_the_addresses_with_its_prefix() {
        for (network, address, is_in) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.1.2.3/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("192.0.2.128/25", "192.0.2.127", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::1", "::1", true),
            ("::1", "::2", false),
        ] {
            let network: IpNet = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), is_in, "{network:?} {address}");
        }
    }

    #[test]
    fn an_invalid_network_is_rejected() {
        for text in ["", "a", "localhost", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "1.2.3.4:5"]
        {
            assert!(text.parse::<IpNet>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_client_is_the_last_forwarded_address_that_is_not_a_trusted_proxy() {
        let proxies = proxies("127.0.0.1,10.0.0.0/8,2001:db8:1::/48");
        for (peer, forwarded, client) in [
            ("127.0.0.1", "192.0.2.1", "192.0.2.1"),
            ("127.0.0.1", "2001:db8:2::1", "2001:db8:2::1"),
            ("2001:db8:1::9", " 192.0.2.1 ", "192.0.2.1"),
            ("::ffff:127.0.0.1", "192.0.2.1", "192.0.2.1"),
            // Others on the way, and a client that says that it is someone else.
            ("127.0.0.1", "192.0.2.1, 10.0.0.1,2001:db8:1::2", "192.0.2.1"),
            ("127.0.0.1", "198.51.100.7, 192.0.2.1", "192.0.2.1"),
            ("127.0.0.1", "nonsense, 192.0.2.1, 10.0.0.1", "192.0.2.1"),
            ("127.0.0.1", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
            // What nobody who is believed has said.
            ("192.0.2.9", "198.51.100.7", "192.0.2.9"),
            ("192.0.2.9", "127.0.0.1", "192.0.2.9"),
            // What is no address.
            ("127.0.0.1", "", "127.0.0.1"),
            ("127.0.0.1", "unknown", "127.0.0.1"),
            ("127.0.0.1", "192.0.2.1, unknown", "127.0.0.1"),
            ("127.0.0.1", "192.0.2.1,", "127.0.0.1"),
            ("127.0.0.1", "192.0.2.1, nonsense, 10.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "192.0.2.1:80", "127.0.0.1"),
        ] {
            assert_eq!(proxies.client_addr(peer.parse().unwrap(), forwarded).to_string(), client, "{peer} {forwarded}");
        }
    }
}
