/* SPDX-License-Identifier: Apache-2.0
 *
 * Frame to 5-tuple. All that is read of a packet is copied out by `take`.
 */
#ifndef SALLYPORT_PARSE_H
#define SALLYPORT_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "sallyport.h"

#define IPV4_OFFSET 0x1fff
#define IPV4_MORE 0x2000
#define IPV6_OFFSET 0xfff8

struct vlan_tag {
	__be16 tci;
	__be16 ethertype;
};

struct ipv6_fragment {
	__u8 nexthdr;
	__u8 reserved;
	__be16 offset;
	__be32 identification;
};

/* What a frame turned out to be, and which fields of `struct datagram` hold then. */
enum parsed {
	PARSED_NOT_IP,         /* none */
	PARSED_NOT_UDP,        /* none */
	PARSED_MALFORMED,      /* addresses */
	PARSED_LATER_FRAGMENT, /* addresses */
	PARSED_FIRST_FRAGMENT, /* addresses and ports */
	PARSED_DATAGRAM,       /* all */
};

struct datagram {
	struct sallyport_flow_key key; /* the zone is the caller's */
	__u16 local_port;              /* host order */
	__u16 payload;                 /* offset in the frame */
	__u16 payload_len;
};

static __always_inline void map_ipv4(__u8 *to, __be32 address)
{
	__builtin_memset(to, 0, 10);
	to[10] = 0xff;
	to[11] = 0xff;
	__builtin_memcpy(to + 12, &address, 4);
}

/* Whether a 16-octet address is a mapped IPv4 one. */
static __always_inline int is_mapped(const __u8 *address)
{
	__u64 high;
	__u32 middle;

	__builtin_memcpy(&high, address, 8);
	__builtin_memcpy(&middle, address + 8, 4);
	return high == 0 && middle == bpf_htonl(0xffff);
}

/* Copies `size` octets at `offset`; whether they are there. A packet pointer whose offset is known at run time only is
 * refused to a loader without CAP_PERFMON, and the helper costs as much as a map lookup: so the usual offsets are
 * constants, each in a copy of the code of its own, and the helper reads behind options. */
static __always_inline int take_octets(struct xdp_md *ctx, __u32 offset, void *to, __u32 size)
{
	void *data, *end;

	if (!__builtin_constant_p(offset))
		return bpf_xdp_load_bytes(ctx, offset, to, size) == 0;
	/* Read anew each time: a pointer kept on the stack is another thing that wants CAP_PERFMON. */
	data = (void *)(long)*(volatile __u32 *)&ctx->data;
	end = (void *)(long)*(volatile __u32 *)&ctx->data_end;
	if (data + offset + size > end)
		return 0;
	__builtin_memcpy(to, data + offset, size);
	return 1;
}

#define take(ctx, offset, header) take_octets(ctx, offset, header, sizeof(*(header)))

/* UDP at `offset`, in an IP packet that ends at `end`; of a first fragment the UDP length goes beyond. */
static __always_inline enum parsed parse_udp(struct xdp_md *ctx, __u32 offset, __u32 end, int first,
					     struct datagram *out)
{
	struct udphdr udp;
	__u32 length;

	if (offset + sizeof(udp) > end || !take(ctx, offset, &udp))
		return PARSED_MALFORMED;
	__builtin_memcpy(out->key.local_port, &udp.dest, 2);
	__builtin_memcpy(out->key.remote_port, &udp.source, 2);
	out->local_port = bpf_ntohs(udp.dest);
	if (first)
		return PARSED_FIRST_FRAGMENT;
	length = bpf_ntohs(udp.len);
	if (length < sizeof(udp) || offset + length > end)
		return PARSED_MALFORMED;
	out->payload = offset + sizeof(udp);
	out->payload_len = length - sizeof(udp);
	return PARSED_DATAGRAM;
}

static __always_inline enum parsed parse_ipv4(struct xdp_md *ctx, __u32 offset, __u32 length, struct datagram *out)
{
	struct iphdr ip;
	__u32 header, total;
	int more;

	if (!take(ctx, offset, &ip))
		return PARSED_NOT_IP;
	if (ip.protocol != IPPROTO_UDP)
		return PARSED_NOT_UDP;
	map_ipv4(out->key.local_address, ip.daddr);
	map_ipv4(out->key.remote_address, ip.saddr);
	header = ip.ihl * 4;
	total = bpf_ntohs(ip.tot_len);
	if (ip.version != 4 || header < sizeof(ip) || total < header || offset + total > length)
		return PARSED_MALFORMED;
	if (ip.frag_off & bpf_htons(IPV4_OFFSET))
		return PARSED_LATER_FRAGMENT;
	more = !!(ip.frag_off & bpf_htons(IPV4_MORE));
	if (header == sizeof(ip))
		return parse_udp(ctx, offset + sizeof(ip), offset + total, more, out);
	return parse_udp(ctx, offset + header, offset + total, more, out);
}

/* Extension headers are not walked, but for one Fragment header: the kernel gets such packets as not UDP. */
static __always_inline enum parsed parse_ipv6(struct xdp_md *ctx, __u32 offset, __u32 length, struct datagram *out)
{
	struct ipv6_fragment fragment = {};
	struct ipv6hdr ip;
	int is_fragment;
	__u32 end;

	if (!take(ctx, offset, &ip))
		return PARSED_NOT_IP;
	__builtin_memcpy(out->key.local_address, &ip.daddr, 16);
	__builtin_memcpy(out->key.remote_address, &ip.saddr, 16);
	end = offset + sizeof(ip) + bpf_ntohs(ip.payload_len);
	offset += sizeof(ip);
	is_fragment = ip.nexthdr == IPPROTO_FRAGMENT;
	if (is_fragment) {
		if (!take(ctx, offset, &fragment))
			return PARSED_MALFORMED;
		offset += sizeof(fragment);
	}
	if ((is_fragment ? fragment.nexthdr : ip.nexthdr) != IPPROTO_UDP)
		return PARSED_NOT_UDP;
	/* A mapped destination on the wire would be taken for an IPv4 one of the maps. */
	if (ip.version != 6 || end > length || is_mapped(out->key.local_address))
		return PARSED_MALFORMED;
	if (fragment.offset & bpf_htons(IPV6_OFFSET))
		return PARSED_LATER_FRAGMENT;
	/* One that is first and last at once (RFC 6946) is a fragment too: userspace takes no extension header. */
	return parse_udp(ctx, offset, end, is_fragment, out);
}

static __always_inline enum parsed parse_ip(struct xdp_md *ctx, __u32 offset, __be16 ethertype, __u32 length,
					    struct datagram *out)
{
	if (ethertype == bpf_htons(ETH_P_IP))
		return parse_ipv4(ctx, offset, length, out);
	if (ethertype == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(ctx, offset, length, out);
	return PARSED_NOT_IP;
}

static __always_inline enum parsed parse(struct xdp_md *ctx, __u32 length, struct datagram *out)
{
	struct ethhdr ethernet;
	struct vlan_tag tag;

	if (!take(ctx, 0, &ethernet))
		return PARSED_NOT_IP;
	if (ethernet.h_proto != bpf_htons(ETH_P_8021Q))
		return parse_ip(ctx, sizeof(ethernet), ethernet.h_proto, length, out);
	if (!take(ctx, sizeof(ethernet), &tag))
		return PARSED_NOT_IP;
	return parse_ip(ctx, sizeof(ethernet) + sizeof(tag), tag.ethertype, length, out);
}

#endif
