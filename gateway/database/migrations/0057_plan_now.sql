-- The plan that each organization has now; who has no row has the default one.
CREATE VIEW identity.plan_now AS
    SELECT p.organization_id, p.plan_id, p.terms, p.ends_at
      FROM identity.organization_plan p
     WHERE p.started_at <= now() AND (p.ends_at IS NULL OR p.ends_at > now());
