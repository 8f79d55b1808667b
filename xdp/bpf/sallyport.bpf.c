// SPDX-License-Identifier: Apache-2.0
//
// The kernel's part of the packet path. It looks at UDP to our media addresses and ports only; everything else is the
// kernel's. A known flow goes to the AF_XDP socket of its queue, or, between plain peers, on from here; an unknown one
// dies here.

#include "decide.h"

SEC("xdp.frags")
int sallyport(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	struct sallyport_interface_value *known = bpf_map_lookup_elem(&interfaces, &ifindex);
	struct place in;

	if (!known)
		return leave(SALLYPORT_PASS_UNKNOWN_INTERFACE, XDP_PASS);
	in.zone = known->zone;
	in.xsk_base = known->xsk_base;
	in.browsers = 0;
	in.frame_max = known->frame_max;
	return decide(ctx, in);
}

char _license[] SEC("license") = "GPL";
