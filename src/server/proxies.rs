//! Client addresses behind trusted proxies. `X-Forwarded-For` is used only if the peer is a trusted proxy. It is read
//! from its end up to the first untrusted address, because the client may have forged everything before that.

use std::net::IpAddr;
use std::str::FromStr;

/// An IP address or network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNet {
    address: IpAddr,
    /// Length of the network prefix in bits.
    prefix_len: u32,
}

/// Addresses of reverse proxies whose `X-Forwarded-For` is used.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl FromStr for IpNet {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected an IP address or a network such as 10.0.0.0/8";
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| EXPECTED)?;
        let max_prefix_len = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = match bits {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().map_err(|_| EXPECTED)?,
            Some(_) => return Err(EXPECTED),
            None => max_prefix_len,
        };
        if prefix_len > max_prefix_len { Err(EXPECTED) } else { Ok(Self { address, prefix_len }) }
    }
}

impl IpNet {
    fn contains(&self, address: IpAddr) -> bool {
        let common_bits = match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => (network.to_bits() ^ address.to_bits()).leading_zeros(),
            (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits() ^ address.to_bits()).leading_zeros(),
            _ => return false,
        };
        common_bits >= self.prefix_len
    }
}

impl From<Vec<IpNet>> for TrustedProxies {
    fn from(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }
}

impl TrustedProxies {
    /// Returns whether `address` is a trusted proxy.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Returns the client's address of a request from `peer` with this `X-Forwarded-For`.
    ///
    /// This is the last address in the list that is not a trusted proxy, or the first address if all are. If `peer` is
    /// not a trusted proxy, or the list is invalid, it is `peer`.
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
        for (network, address, expected) in [
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
            assert_eq!(network.contains(address.parse().unwrap()), expected, "{network:?} {address}");
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
            // Further proxies on the way, and addresses that the client forged.
            ("127.0.0.1", "192.0.2.1, 10.0.0.1,2001:db8:1::2", "192.0.2.1"),
            ("127.0.0.1", "198.51.100.7, 192.0.2.1", "192.0.2.1"),
            ("127.0.0.1", "nonsense, 192.0.2.1, 10.0.0.1", "192.0.2.1"),
            ("127.0.0.1", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
            // The peer is not a trusted proxy.
            ("192.0.2.9", "198.51.100.7", "192.0.2.9"),
            ("192.0.2.9", "127.0.0.1", "192.0.2.9"),
            // The list is invalid.
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
