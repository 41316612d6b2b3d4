//! Whose request it is that a proxy hands on. Only proxies that are named are believed, and of what they say only what
//! one of them has seen: whatever stands before it in the list, the client may have written.

use std::net::IpAddr;
use std::str::FromStr;

/// An address, or a network of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// How many bits at its beginning count.
    bits: u32,
}

/// The proxies that are believed.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Vec<Network>);

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const NEITHER: &str = "it is an address, or a network such as 10.0.0.0/8";
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NEITHER)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().map_err(|_| NEITHER)?,
            Some(_) => return Err(NEITHER),
            None => all,
        };
        if bits > all { Err(NEITHER) } else { Ok(Self { address, bits }) }
    }
}

impl Network {
    fn holds(&self, address: IpAddr) -> bool {
        let differing = match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros(),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros(),
            _ => return false,
        };
        differing >= self.bits
    }
}

impl From<Vec<Network>> for Proxies {
    fn from(networks: Vec<Network>) -> Self {
        Self(networks)
    }
}

impl Proxies {
    /// Whether the one at this address is believed.
    pub(super) fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.holds(address))
    }

    /// Whose request it is that came from `peer` with this `X-Forwarded-For`.
    ///
    /// The last address in the list that is no trusted proxy, or the first if all are; `peer` if it is not believed, or
    /// says what is no address.
    pub(super) fn client(&self, peer: IpAddr, forwarded: &str) -> IpAddr {
        if !self.trust(peer) {
            return peer;
        }
        let mut client = peer;
        for part in forwarded.rsplit(',') {
            let Ok(address) = part.trim().parse() else { return peer };
            client = address;
            if !self.trust(client) {
                break;
            }
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(networks: &str) -> Proxies {
        networks.split(',').map(|network| network.parse().unwrap()).collect::<Vec<_>>().into()
    }

    #[test]
    fn a_network_holds_the_addresses_that_begin_as_it_does() {
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
            let network: Network = network.parse().unwrap();
            assert_eq!(network.holds(address.parse().unwrap()), is_in, "{network:?} {address}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "a", "localhost", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "1.2.3.4:5"]
        {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_client_is_the_last_that_no_proxy_vouches_for() {
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
            assert_eq!(proxies.client(peer.parse().unwrap(), forwarded).to_string(), client, "{peer} {forwarded}");
        }
    }
}
