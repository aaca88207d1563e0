// What REST tells of a tenant as the signed-in person sees it, all of it at once.

import { ApiError, call } from "./api.js";

export async function readAll() {
  const current = call("GET", "tenants/current");
  const [me, tenant, members, subscription, plans, jobs, notifications, unread] = await Promise.all([
    call("GET", "auth/me"),
    current,
    // Only owners and admins may see who else is in the tenant.
    current.then(({ data }) => call("GET", `tenants/${data.id}/users?size=100`)).catch(nullIf(403)),
    call("GET", "billing/subscription").catch(nullIf(404)),
    call("GET", "billing/plans"),
    call("GET", "provisioning/jobs?size=10"),
    call("GET", "notifications?size=20"),
    call("GET", "notifications/unread-count"),
  ]);
  return {
    me: me.data,
    tenant: tenant.data,
    members: new Map((members?.data ?? []).map((member) => [member.user_id, member.full_name])),
    subscription: subscription?.data ?? null,
    plans: plans.data,
    jobs: new Map(jobs.data.map((job) => [job.id, job])),
    notifications: notifications.data,
    unread: unread.data.count,
  };
}

const nullIf = (status) => (error) => {
  if (error instanceof ApiError && error.status === status) return null;
  throw error;
};
