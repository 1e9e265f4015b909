/** Placeholder until the view is in place. */
export interface ViewNode {
  readonly path: string;
}
