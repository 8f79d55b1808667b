/* SPDX-License-Identifier: Apache-2.0
 *
 * Frame to 5-tuple. All packet reads go through the bounds check of `at`.
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

struct vlan_tag {
	__be16 tci;
	__be16 ethertype;
};

enum parsed {
	PARSED_UDP,
	PARSED_NOT_UDP,
	PARSED_FRAGMENT,  /* key.local_address is set */
	PARSED_MALFORMED, /* key.local_address is set */
	PARSED_UNREADABLE,
};

/* A datagram: the key's zone is the caller's. */
struct datagram {
	struct sallyport_flow_key key;
	__u16 local_port;   /* host order */
	__u16 payload;      /* offset in the frame */
	__u16 payload_len;
};

/* `size` octets at `offset`, or NULL. */
static __always_inline void *at(struct xdp_md *ctx, __u32 offset, __u32 size)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;

	if (data + offset + size > data_end)
		return NULL;
	return data + offset;
}

static __always_inline void map_ipv4(__u8 *to, __be32 address)
{
	__builtin_memset(to, 0, 10);
	to[10] = 0xff;
	to[11] = 0xff;
	__builtin_memcpy(to + 12, &address, 4);
}

/* UDP behind the IP header at `offset`; `end` is where the IP packet ends in the frame. */
static __always_inline enum parsed parse_udp(struct xdp_md *ctx, __u32 offset, __u32 end, struct datagram *out)
{
	struct udphdr *udp = at(ctx, offset, sizeof(*udp));
	__u32 length;

	if (!udp)
		return PARSED_MALFORMED;
	length = bpf_ntohs(udp->len);
	if (length < sizeof(*udp) || offset + length > end)
		return PARSED_MALFORMED;
	__builtin_memcpy(out->key.local_port, &udp->dest, 2);
	__builtin_memcpy(out->key.remote_port, &udp->source, 2);
	out->local_port = bpf_ntohs(udp->dest);
	out->payload = offset + sizeof(*udp);
	out->payload_len = length - sizeof(*udp);
	return PARSED_UDP;
}

static __always_inline enum parsed parse_ipv4(struct xdp_md *ctx, __u32 offset, __u32 length, struct datagram *out)
{
	struct iphdr *ip = at(ctx, offset, sizeof(*ip));
	__u32 header, total;

	if (!ip)
		return PARSED_UNREADABLE;
	if (ip->protocol != IPPROTO_UDP)
		return PARSED_NOT_UDP;
	map_ipv4(out->key.local_address, ip->daddr);
	map_ipv4(out->key.remote_address, ip->saddr);
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || total < header || offset + total > length)
		return PARSED_MALFORMED;
	if (ip->frag_off & bpf_htons(0x3fff))
		return PARSED_FRAGMENT;
	return parse_udp(ctx, offset + header, offset + total, out);
}

static __always_inline enum parsed parse_ipv6(struct xdp_md *ctx, __u32 offset, __u32 length, struct datagram *out)
{
	struct ipv6hdr *ip = at(ctx, offset, sizeof(*ip));
	__u32 end;

	if (!ip)
		return PARSED_UNREADABLE;
	__builtin_memcpy(out->key.local_address, &ip->daddr, 16);
	__builtin_memcpy(out->key.remote_address, &ip->saddr, 16);
	if (ip->nexthdr == IPPROTO_FRAGMENT)
		return PARSED_FRAGMENT;
	if (ip->nexthdr != IPPROTO_UDP)
		return PARSED_NOT_UDP;
	end = offset + sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || end > length)
		return PARSED_MALFORMED;
	return parse_udp(ctx, offset + sizeof(*ip), end, out);
}

static __always_inline enum parsed parse(struct xdp_md *ctx, struct datagram *out)
{
	/* Not data_end - data: that subtraction wants CAP_PERFMON. */
	__u32 length = bpf_xdp_get_buff_len(ctx);
	__u32 offset = sizeof(struct ethhdr);
	struct ethhdr *ethernet = at(ctx, 0, sizeof(*ethernet));
	__be16 ethertype;

	if (!ethernet)
		return PARSED_UNREADABLE;
	ethertype = ethernet->h_proto;
	if (ethertype == bpf_htons(ETH_P_8021Q)) {
		struct vlan_tag *tag = at(ctx, offset, sizeof(*tag));

		if (!tag)
			return PARSED_UNREADABLE;
		ethertype = tag->ethertype;
		offset += sizeof(*tag);
	}
	if (ethertype == bpf_htons(ETH_P_IP))
		return parse_ipv4(ctx, offset, length, out);
	if (ethertype == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(ctx, offset, length, out);
	return PARSED_NOT_UDP;
}

#endif
